#!/bin/sh
# Starts SeaweedFS with its users, which it reads from a file: that is written here, to memory, from the environment.
# Who may do what: the administrator makes buckets; the workers and MLflow's server have one each.
set -eu
umask 077
cat > "$S3_USERS" <<JSON
{"identities": [
 {"name": "admin", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "$S3_ADMIN_KEY", "secretKey": "$S3_ADMIN_SECRET"}]},
 {"name": "worker", "actions": ["Read:semivl", "Write:semivl", "List:semivl", "Tagging:semivl"],
  "credentials": [{"accessKey": "$S3_WORKER_KEY", "secretKey": "$S3_WORKER_SECRET"}]},
 {"name": "mlflow", "actions": ["Read:semivl-artifacts", "Write:semivl-artifacts", "List:semivl-artifacts"],
  "credentials": [{"accessKey": "$S3_MLFLOW_KEY", "secretKey": "$S3_MLFLOW_SECRET"}]}
]}
JSON
unset S3_ADMIN_KEY S3_ADMIN_SECRET S3_WORKER_KEY S3_WORKER_SECRET S3_MLFLOW_KEY S3_MLFLOW_SECRET
exec weed "$@" "-s3.config=$S3_USERS"
