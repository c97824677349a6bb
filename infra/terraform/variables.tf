variable "name" {
  description = "Begins the name of everything that is made; with the account's number it must be unique among all buckets of AWS."
  type        = string
  default     = "semivl"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "Lower-case letters, digits and dashes, 2 to 21 of them, a letter first."
  }
}

variable "region" {
  description = "AWS region of all of it."
  type        = string
}

variable "sources" {
  description = "Where the photos come from, read only: buckets of yours with the prefixes that ingest may read, such as {photos = [\"incoming/\"]}."
  type        = map(list(string))
  default     = {}
}

variable "predictions_prefix" {
  description = "Prefix of the data bucket that predictions are written to, and the only one that serving may write."
  type        = string
  default     = "predictions/"

  validation {
    condition     = can(regex("^[^/].*/$", var.predictions_prefix))
    error_message = "It ends in a slash and does not begin with one."
  }
}

variable "inputs_prefix" {
  description = "Prefix of the data bucket with photos to predict."
  type        = string
  default     = "inputs/"

  validation {
    condition     = can(regex("^[^/].*/$", var.inputs_prefix))
    error_message = "It ends in a slash and does not begin with one."
  }
}

variable "noncurrent_days" {
  description = "Days that overwritten and deleted objects can be brought back. What `semivl forget` removes is gone for good only after them."
  type        = number
  default     = 30
}

variable "checkpoint_days" {
  description = "Days after which a checkpoint counts as left behind. A training that is paused for longer starts anew."
  type        = number
  default     = 60
}

variable "cluster_name" {
  description = "Name of an EKS cluster that is there, with the add-on eks-pod-identity-agent."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of the cluster in which GPU nodes may start; several zones find a free GPU sooner."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "Name one at least."
  }
}

variable "namespace" {
  description = "Kubernetes namespace of infra/kubernetes."
  type        = string
  default     = "semivl"
}

variable "gpu_instance_types" {
  description = "Instance types of GPU nodes. All must have the same number of GPUs, which is gpus_per_node."
  type        = list(string)
  default     = ["g6.2xlarge"]
}

variable "gpus_per_node" {
  description = "GPUs of one of these instances; told to the autoscaler, which sees no node while there is none."
  type        = number
  default     = 1
}

variable "gpu_capacity" {
  description = "ON_DEMAND, or SPOT: cheaper, and a node may go with two minutes' notice; the training goes on from its last checkpoint."
  type        = string
  default     = "ON_DEMAND"

  validation {
    condition     = contains(["ON_DEMAND", "SPOT"], var.gpu_capacity)
    error_message = "ON_DEMAND or SPOT."
  }
}

variable "gpu_max_nodes" {
  description = "The most GPU nodes at once: the bound on what they can cost."
  type        = number
  default     = 2
}

variable "gpu_disk_gb" {
  description = "Disk of a GPU node: the image, the shard cache and checkpoints."
  type        = number
  default     = 300
}
