"""Waiting for what becomes of pictures, by the folders and the ledger; `status` is asked where its words matter."""

from collections.abc import Collection

from harness import Site, wait_until

_OPEN = "SELECT trouble FROM pictures WHERE state NOT IN ('done', 'failed', 'withdrawn')"


def whys(site: Site) -> dict[str, str]:
    """What `status` says of each picture that has not come to its end."""
    report = site.status()
    return {entry["path"]: entry["why"] for entry in (*report["waiting"], *report["working"])}


def wait_done(site: Site, but: Collection[str] = ()) -> None:
    """Until nothing is in the inbox, but what is left alone, and all books are closed."""
    wait_until(lambda: site.names(site.inbox) == set(but), "the inbox to be empty", 30)
    wait_until(lambda: not site.query(_OPEN), "every picture to come to its end", 30)
    wait_until(lambda: not site.query("SELECT id FROM batches WHERE finished_at IS NULL"), "the books to be closed")


def wait_saying(site: Site, why: str, count: int = 1) -> dict[str, str]:
    """Until so many pictures, and every one that is not done, wait for that reason; what `status` says then."""

    def said() -> dict[str, str] | None:
        troubles = [trouble for (trouble,) in site.query(_OPEN)]
        if len(troubles) < count or not all(why in trouble for trouble in troubles):
            return None
        found = whys(site)
        return found if len(found) >= count and all(why in each for each in found.values()) else None

    return dict(wait_until(said, f"{why} as the reason", 20))
