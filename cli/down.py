"""`artstore down`: after it nothing of this home runs, whoever started it and however that ended."""

from cli.terminal import Waiting, out

_SECONDS = 60.0


def down() -> None:
    """Stop the running stack."""
    from local.settings import StackSettings
    from local.state import Home, ask_to_stop

    home = Home(StackSettings.read().artstore_home)
    run = home.running()
    if run is not None:
        with Waiting(f"Stopping (process {run.supervisor.pid})"):
            ask_to_stop(run, _SECONDS)
        out.print("Stopped; the data are kept.")
    elif home.read() is not None:
        home.acquire()
        orphans = home.stop_orphans()
        home.release()
        names = f": {', '.join(orphans)}" if orphans else ""
        out.print(f"Nothing was supervised; stopped what a killed run had left behind{names}.")
    else:
        out.print("Nothing is running.")
