"""`deploy`: a server that draws with many adapters, on this machine or in the account."""

from typing import Any

import click

from orchestrator.cli.completion import endpoint_names
from orchestrator.cli.endpoint_options import deployment_of, deployment_options, fields_of, hosts, mode_option
from orchestrator.cli.output import json_option
from orchestrator.endpoints.names import HostName


@click.command()
@click.argument("name", shell_complete=endpoint_names)
@click.option(
    "--host",
    type=click.Choice([host.value for host in HostName]),
    default=HostName.LOCAL.value,
    show_default=True,
    help="Where it runs.",
)
@mode_option
@deployment_options
@json_option
def deploy(name: str, host: str, as_json: bool, **given: Any) -> None:
    """Start the endpoint NAME, or change the one that runs to what is asked for.

    An endpoint is a server with one base model and any number of adapters; requests that name different adapters are
    drawn together. Idempotent: run again, it changes only what differs, and adapters without a restart.

    \b
    deploy mine --adapters dog,cat
    generate mine --prompt "a photo of sks dog" --adapter dog:0.8 --seed 1 -o out.png
    endpoints delete mine

    On this machine the server runs until it is deleted, and listens on 127.0.0.1 alone. On SageMaker the plan shows
    what it costs, and nothing is created before you agree.

    Where the folder of the base model has a safety_checker and a feature_extractor (safetensors; not of the Hub), the
    answer says of each image whether it is flagged. The image itself is never changed or left out.
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.cli.deploying import Begin, begin

    fields = {**fields_of({**given, "name": name}), "host": host}
    deployment = deployment_of(fields, "Nothing was deployed.")
    (chosen,) = hosts(host)
    begin(chosen, deployment, Begin.of(given, as_json=as_json))
