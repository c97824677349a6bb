# What each stage may do in the data bucket, by the prefixes that its code reads and writes, and a role for each.
# MLflow is reached over HTTP: no stage needs the artifacts' bucket, which is MLflow's server's alone.
locals {
  # Beneath datasets/: shards, snapshots and HEAD are only ever added or moved. Ingest removes what it has noted of
  # half-done work, and validation its own old pages. `semivl gc` and `semivl forget` delete more: a person runs those.
  ingest = {
    read   = ["datasets/"]
    write  = ["datasets/"]
    delete = ["datasets/*/groups/", "datasets/*/docs/"]
  }
  # Train, evaluate, promote, drift.
  training = {
    read   = ["datasets/", "checkpoints/", "scores/", "decisions/", "champions/", "frozen/", "overlaps/", "features/", "drift/"]
    write  = ["checkpoints/", "scores/", "decisions/", "champions/", "frozen/", "overlaps/", "features/", "drift/"]
    delete = ["checkpoints/"]
  }
  serving = {
    read   = ["datasets/", var.inputs_prefix, var.predictions_prefix]
    write  = [var.predictions_prefix]
    delete = [var.predictions_prefix]
  }
  stages = { ingest = local.ingest, training = local.training, serving = local.serving }

  # The worker of the pool semivl-local runs the whole turn in one process, so it needs what both need.
  roles = {
    ingest   = ["ingest"]
    training = ["training"]
    serving  = ["serving"]
    loop     = ["ingest", "training"]
  }
  grants = merge([for role, stages in local.roles : { for stage in stages : "${role}-${stage}" => { role = role, stage = stage } }]...)
}

data "aws_iam_policy_document" "stage" {
  for_each = local.stages

  # Of the whole bucket: S3 answers "is this bucket there" and "there is no such object" to those alone who may list.
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.this["data"].arn]
  }

  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = [for prefix in each.value.read : "${aws_s3_bucket.this["data"].arn}/${prefix}*"]
  }

  statement {
    sid       = "Write"
    actions   = ["s3:PutObject"]
    resources = [for prefix in each.value.write : "${aws_s3_bucket.this["data"].arn}/${prefix}*"]
  }

  statement {
    sid       = "Delete"
    actions   = ["s3:DeleteObject"] # of a versioned bucket: it can be brought back
    resources = [for prefix in each.value.delete : "${aws_s3_bucket.this["data"].arn}/${prefix}*"]
  }

  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.data.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${var.region}.amazonaws.com"]
    }
  }

  dynamic "statement" {
    for_each = each.key == "ingest" ? var.sources : {}

    content {
      sid       = "ListSource${replace(title(replace(statement.key, "/[^a-z0-9]/", " ")), " ", "")}"
      actions   = ["s3:ListBucket"]
      resources = ["arn:${data.aws_partition.current.partition}:s3:::${statement.key}"]

      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values   = [for prefix in statement.value : "${prefix}*"]
      }
    }
  }

  dynamic "statement" {
    for_each = each.key == "ingest" ? var.sources : {}

    content {
      sid       = "ReadSource${replace(title(replace(statement.key, "/[^a-z0-9]/", " ")), " ", "")}"
      actions   = ["s3:GetObject"]
      resources = [for prefix in statement.value : "arn:${data.aws_partition.current.partition}:s3:::${statement.key}/${prefix}*"]
    }
  }
}

resource "aws_iam_policy" "stage" {
  for_each = local.stages
  name     = "${var.name}-${each.key}"
  policy   = data.aws_iam_policy_document.stage[each.key].json
}

data "aws_iam_policy_document" "mlflow" {
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.this["artifacts"].arn]
  }

  statement {
    sid       = "Artifacts"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${aws_s3_bucket.this["artifacts"].arn}/mlflow/*"]
  }

  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.data.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${var.region}.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "mlflow" {
  name   = "${var.name}-mlflow"
  policy = data.aws_iam_policy_document.mlflow.json
}

# Each role can be taken by one account of one namespace of one cluster alone.
locals {
  accounts = merge(
    { for role in keys(local.roles) : role => { namespace = var.namespace, account = role } },
    {
      mlflow     = { namespace = var.namespace, account = "mlflow" }
      autoscaler = { namespace = "kube-system", account = "cluster-autoscaler" }
    },
  )
}

data "aws_iam_policy_document" "trust" {
  for_each = local.accounts

  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/eks-cluster-name"
      values   = [var.cluster_name]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-namespace"
      values   = [each.value.namespace]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-service-account"
      values   = [each.value.account]
    }
  }
}

resource "aws_iam_role" "pod" {
  for_each             = local.accounts
  name                 = "${var.name}-${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  max_session_duration = 3600
}

resource "aws_iam_role_policy_attachment" "stage" {
  for_each   = local.grants
  role       = aws_iam_role.pod[each.value.role].name
  policy_arn = aws_iam_policy.stage[each.value.stage].arn
}

resource "aws_iam_role_policy_attachment" "mlflow" {
  role       = aws_iam_role.pod["mlflow"].name
  policy_arn = aws_iam_policy.mlflow.arn
}

resource "aws_eks_pod_identity_association" "this" {
  for_each        = local.accounts
  cluster_name    = var.cluster_name
  namespace       = each.value.namespace
  service_account = each.value.account
  role_arn        = aws_iam_role.pod[each.key].arn
}
