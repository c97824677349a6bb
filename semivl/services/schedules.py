"""An experiment's own deployment of semivl-retrain: its schedule, what becomes of overlaps, and the events it hears.

It is a copy of the deployment in prefect.yaml with the experiment as its parameter, so that each experiment has one
place in the queue of its own.
"""

from typing import TYPE_CHECKING, Any

from semivl.config import Config, interval_of
from semivl.errors import ServiceError
from semivl.services.runs import client_of

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse

RETRAIN = "semivl-retrain"
LOCAL = f"{RETRAIN}/local"
_PREFIX = "scheduled-"
_COPIED = (
    "flow_id", "description", "tags", "path", "entrypoint", "parameter_openapi_schema", "pull_steps",
    "enforce_parameter_schema", "job_variables",
)  # fmt: skip
_STRATEGY = {"queue": "ENQUEUE", "cancel": "CANCEL_NEW"}


def deployment_of(experiment: str) -> str:
    """The name of the experiment's deployment, whether or not there is one."""
    return f"{RETRAIN}/{_PREFIX}{experiment}"


def is_scheduled(experiment: str) -> bool:
    """Whether the experiment has a deployment of its own, with a schedule."""
    with client_of() as client:
        found = _find(client, deployment_of(experiment))
        return found is not None and bool(found.schedules)


def schedule(config: Config, overrides: dict[str, Any], pool: str | None = None) -> None:
    """Makes the experiment's deployment, or makes it anew, with the schedule and overlap of its settings.

    Raises:
        ServiceError: SERV101 Prefect does not answer, SERV102 it knows no semivl-retrain, SERV104 it does not take
            the schedule or the pool.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    with client_of() as client:
        base = _find(client, LOCAL)
        if base is None:
            raise ServiceError("SERV102", f"Prefect knows no deployment {LOCAL}.", "Make them with `semivl up`.")
        when = DeploymentScheduleCreate(schedule=_when(config.retrain.schedule), active=True)
        overlap = ConcurrencyLimitStrategy(_STRATEGY[config.retrain.overlap])
        try:
            made = client.create_deployment(
                name=f"{_PREFIX}{config.name}",
                parameters={"experiment": config.name, "overrides": overrides or None},
                schedules=[when],
                concurrency_limit=1,
                concurrency_options=ConcurrencyOptions(collision_strategy=overlap),
                work_pool_name=pool or base.work_pool_name,
                **{name: getattr(base, name) for name in _COPIED},
            )
        except (ObjectNotFound, PrefectHTTPStatusError) as error:
            raise _refused(str(error)) from None
        _listen(client, made, config)


def unschedule(experiment: str) -> bool:
    """Takes schedule and events from the experiment's deployment; False where it has none. A run at work goes on."""
    with client_of() as client:
        found = _find(client, deployment_of(experiment))
        if found is None:
            return False
        for one in found.schedules:
            client.delete_deployment_schedule(found.id, one.id)
        client.delete_resource_owned_automations(f"prefect.deployment.{found.id}")
        return True


def refresh() -> None:
    """Brings what the experiments' deployments copied up to date with prefect.yaml."""
    from prefect.client.schemas.actions import DeploymentUpdate
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    with client_of() as client:
        base = _find(client, LOCAL)
        named = DeploymentFilter(name=DeploymentFilterName(like_=_PREFIX))
        for one in client.read_deployments(deployment_filter=named) if base else ():
            copied = {name: getattr(base, name) for name in _COPIED if name in DeploymentUpdate.model_fields}
            client.update_deployment(one.id, DeploymentUpdate(**copied))


def _find(client: Any, name: str) -> "DeploymentResponse | None":
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _when(schedule: str) -> Any:
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
    from pydantic import ValidationError

    interval = interval_of(schedule)
    try:
        return IntervalSchedule(interval=interval) if interval else CronSchedule(cron=schedule, timezone="UTC")
    except ValidationError as error:
        raise _refused("; ".join(e["msg"] for e in error.errors())) from None


def _listen(client: Any, deployment: Any, config: Config) -> None:
    """The events that start a run: somebody else's snapshot of the dataset, and drift that was found in it."""
    from prefect.events import DeploymentEventTrigger

    client.delete_resource_owned_automations(f"prefect.deployment.{deployment}")
    dataset: dict[str, str | list[str]] = {"prefect.resource.id": f"semivl.dataset.{config.data.dataset}"}
    heard: dict[str, dict[str, str | list[str]]] = {
        "semivl.snapshot.committed": dataset | {"semivl.retraining": f"!{config.name}"},  # its own starts no other
        "semivl.drift.found": dataset,
    }
    for event, match in heard.items():
        trigger = DeploymentEventTrigger(name=f"{RETRAIN} {config.name} on {event}", expect={event}, match=match)
        trigger.set_deployment_id(deployment)
        client.create_automation(trigger.as_automation())


def _refused(words: str) -> ServiceError:
    what = f"Prefect does not take the schedule: {' '.join(words.split())}."
    return ServiceError("SERV104", what, "Mend retrain.schedule (an interval such as 6h, or a cron) or the pool.")
