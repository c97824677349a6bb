# data: datasets, checkpoints, scores, decisions. artifacts: MLflow's. logs: who asked for what in the other two.
locals {
  kept = toset(["data", "artifacts"])
  all  = toset(["data", "artifacts", "logs"])
}

resource "aws_s3_bucket" "this" {
  # checkov:skip=CKV_AWS_144:A copy in another region doubles the cost; README says when to add one
  # checkov:skip=CKV2_AWS_62:Nothing listens to events of these buckets
  # checkov:skip=CKV_AWS_145:The two with data have our key; the log's has S3's own, since S3 writes it
  # checkov:skip=CKV_AWS_18:The two with data are logged, by aws_s3_bucket_logging.this; the log's own bucket is not
  for_each = local.all
  bucket   = "${var.name}-${data.aws_caller_identity.current.account_id}-${each.key}"

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each                = local.all
  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.all
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.all
  bucket   = aws_s3_bucket.this[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.all
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      # S3 writes its own logs, and can use no key of ours without a hole in the key's policy.
      sse_algorithm     = each.key == "logs" ? "AES256" : "aws:kms"
      kms_master_key_id = each.key == "logs" ? null : aws_kms_key.data.arn
    }
  }
}

resource "aws_s3_bucket_logging" "this" {
  for_each      = local.kept
  bucket        = aws_s3_bucket.this[each.key].id
  target_bucket = aws_s3_bucket.this["logs"].id
  target_prefix = "${each.key}/"
}

resource "aws_s3_bucket_lifecycle_configuration" "kept" {
  # checkov:skip=CKV_AWS_300:The first rule does, for the whole bucket; the check reads the last one alone
  for_each   = local.kept
  bucket     = aws_s3_bucket.this[each.key].id
  depends_on = [aws_s3_bucket_versioning.this]

  rule {
    id     = "what-was-replaced"
    status = "Enabled"
    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }

    expiration {
      expired_object_delete_marker = true
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
  }

  # Snapshots share shards, so no age says that a shard is not needed: `semivl gc` decides that, not a rule here.
  dynamic "rule" {
    for_each = each.key == "data" ? [1] : []

    content {
      id     = "checkpoints-left-behind"
      status = "Enabled"

      filter {
        prefix = "checkpoints/"
      }

      expiration {
        days = var.checkpoint_days
      }
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  bucket     = aws_s3_bucket.this["logs"].id
  depends_on = [aws_s3_bucket_versioning.this]

  rule {
    id     = "old-logs"
    status = "Enabled"
    filter {}

    expiration {
      days = 90
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
  }
}

data "aws_iam_policy_document" "bucket" {
  for_each = local.all

  statement {
    sid       = "EncryptedConnectionsAlone"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.this[each.key].arn, "${aws_s3_bucket.this[each.key].arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  dynamic "statement" {
    for_each = each.key == "logs" ? [1] : []

    content {
      sid       = "S3WritesItsLogs"
      actions   = ["s3:PutObject"]
      resources = ["${aws_s3_bucket.this[each.key].arn}/*"]

      principals {
        type        = "Service"
        identifiers = ["logging.s3.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [data.aws_caller_identity.current.account_id]
      }
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each   = local.all
  bucket     = aws_s3_bucket.this[each.key].id
  policy     = data.aws_iam_policy_document.bucket[each.key].json
  depends_on = [aws_s3_bucket_public_access_block.this]
}
