"""What a gateway keeps on disk."""

import stat
from pathlib import Path

from serving.gateway.keepsake import Keepsake
from serving.protocol import RoutesDelta
from tests.serving.gateway.fake_controller import model

TABLE = RoutesDelta(version=3, full=True, models=(model("demo"),))


def test_saved_message_is_loaded_again(tmp_path: Path) -> None:
    keepsake = Keepsake(tmp_path / "new" / "folder")
    keepsake.save("routes", TABLE)
    assert keepsake.load("routes", RoutesDelta) == TABLE


def test_file_is_for_its_owner_alone_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    Keepsake(tmp_path).save("routes", TABLE)
    Keepsake(tmp_path).save("routes", TABLE)
    files = list(tmp_path.iterdir())
    assert [file.name for file in files] == ["routes.json"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_nothing_is_loaded_where_nothing_was_saved(tmp_path: Path) -> None:
    assert Keepsake(tmp_path).load("routes", RoutesDelta) is None


def test_broken_file_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "routes.json").write_bytes(b'{"version": 3, "fu')
    assert Keepsake(tmp_path).load("routes", RoutesDelta) is None


def test_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    Keepsake(blocked).save("routes", TABLE)
    assert Keepsake(blocked).load("routes", RoutesDelta) is None
