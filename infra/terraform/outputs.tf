output "data_bucket" {
  description = "SEMIVL_S3_BUCKET of infra/kubernetes/overlays/aws."
  value       = aws_s3_bucket.this["data"].id
}

output "artifacts_bucket" {
  description = "The bucket in MLFLOW_ARTIFACTS_DESTINATION."
  value       = aws_s3_bucket.this["artifacts"].id
}

output "roles" {
  description = "The role of each account; Pod Identity hands it to the pods."
  value       = { for name, role in aws_iam_role.pod : name => role.arn }
}

output "images" {
  description = "Where to push the images."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "gpu_node_group" {
  description = "The nodes that training runs on."
  value       = aws_eks_node_group.gpu.node_group_name
}
