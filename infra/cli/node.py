"""`fw node`: what the platform hands to an edge node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from infra.cli.node_registry import listed, mode, register, revoke, token

app = typer.Typer(name="node", help="Edge nodes: register, enrol, drain, revoke.", no_args_is_help=True)

NodeId = Annotated[str, typer.Option("--node-id", help="What the node is called in every fact that it reports.")]
Tenants = Annotated[
    list[UUID] | None, typer.Option("--tenant", metavar="UUID", help="A tenant that the node serves; repeat for more.")
]
Operator = Annotated[bool, typer.Option("--operator", help="A node of the operator: serves every tenant.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="File to write (mode 0600), instead of printing.")]
DataDir = Annotated[Path | None, typer.Option(help="Directory of a running `fw up`; FW_DATA_DIR, else ./data.")]


@app.callback()
def node() -> None:
    """Edge nodes: register, enrol, drain, revoke."""


@app.command()
def authority(
    directory: Annotated[Path, typer.Option("-o", "--output-dir", help="Directory for authority.crt and authority.key.")],
) -> None:
    """Make the certificate authority of a platform's nodes, for a cluster. `fw up` makes one by itself.

    Every gateway and ingress gets both files (FW_CA_CERT, FW_CA_KEY). Whoever has the key can pass for the platform and for any
    node: keep it as you keep FW_SECRET_KEY. A new authority means enrolling every node anew. One that is there is kept.

    Examples:

    \b
      fw node authority -o /etc/frameworks
      FW_CA_CERT=/etc/frameworks/authority.crt FW_CA_KEY=/etc/frameworks/authority.key python -m gateway
    """
    from datetime import UTC, datetime

    from streams.pki.authority import NoAuthority, load, make
    from streams.settings import authority_files

    certificate_file, key_file = authority_files(directory)
    try:
        if certificate_file.exists() or key_file.exists():
            typer.echo(f"kept {certificate_file} and {key_file}; nodes know it as {load(certificate_file, key_file).pin}")
            return
        certificate, key = make(datetime.now(UTC))
        directory.mkdir(parents=True, exist_ok=True)
        _write_private(key_file, key.decode().rstrip())
        _write_private(certificate_file, certificate.decode().rstrip())
    except (OSError, NoAuthority) as error:
        typer.echo(f"fw: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"wrote {certificate_file} and {key_file}; nodes know it as {load(certificate_file, key_file).pin}")


@app.command()
def credential(
    node_id: NodeId, tenant: Tenants = None, operator: Operator = False, output: Output = None, data_dir: DataDir = None
) -> None:
    """Issue a credential for an edge node. It is valid until the master secret (FW_SECRET_KEY) changes.

    Examples:

    \b
      fw node credential --node-id fra-1 --operator -o fra-1.credential
      fw node credential --node-id studio --tenant 0190f3a2-5c1e-7d2a-8a55-2f6f0e1a7c11
    """
    from streams.ingress.credentials import issue
    from streams.settings import Reader, SettingsError, stack_file

    if operator == bool(tenant):
        raise typer.BadParameter("either name tenants (--tenant, repeated) or make it a node of the operator (--operator)")
    try:
        reader = Reader(os.environ, stack_file(data_dir or Path(os.environ.get("FW_DATA_DIR", "data"))))
        secret_key = reader.hex_secret("FW_SECRET_KEY", "secret_key")
        if reader.problems:
            raise SettingsError("\n".join(reader.problems))
        text = issue(secret_key, node_id, None if operator else tenant)
        if output is not None:
            _write_private(output, text)
    except (OSError, SettingsError, ValueError) as error:
        typer.echo(f"fw: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(text if output is None else f"wrote {output}")


def _write_private(path: Path, text: str) -> None:
    """Never readable by others, not for a moment; replaces what was there at once."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    beside.replace(path)


for command in (register, token, listed, mode, revoke):
    app.command(name=command.__name__ if command is not listed else "list")(command)

if __name__ == "__main__":
    app()
