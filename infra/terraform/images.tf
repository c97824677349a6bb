# Where the images of the Dockerfile's targets lie. A tag is never moved: a model's lineage names it.
resource "aws_ecr_repository" "this" {
  for_each             = toset(["semivl-worker", "semivl-server"])
  name                 = each.key
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = aws_kms_key.data.arn
  }
}
