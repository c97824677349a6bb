"""The embedded S3, MLflow, Prefect and worker of one machine: `semivl up`, `down`, `status`, `doctor`.

    from semivl.services import supervisor
    supervisor.up()

Everything lies under `settings.home()`: data, logs/, services/ (who runs) and services.env (addresses and
credentials). A service whose address the user has set is left alone: its state is "yours".
"""
