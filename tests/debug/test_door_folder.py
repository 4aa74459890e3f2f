"""The folder of the doors is its owner's alone, and what dead processes have left in it is recognized."""

import os
import socket

import pytest

from goloop.debug._door import folder


@pytest.fixture
def fd(door_folder):
    with folder.opened(folder.path(), make=True) as fd:
        yield fd


def test_the_folder_is_made_for_its_owner_alone(door_folder):
    with folder.opened(folder.path(), make=True):
        found = door_folder.stat()
        assert found.st_mode & 0o7777 == 0o700 and found.st_uid == os.geteuid()


def test_the_folder_is_this_users_if_no_other_is_named(monkeypatch):
    monkeypatch.delenv("GOLOOP_DEBUG_DIR", raising=False)
    assert folder.path() == f"/tmp/goloop-{os.geteuid()}"


@pytest.mark.parametrize("mode", [0o701, 0o750, 0o777])
def test_a_folder_that_others_may_enter_is_refused(door_folder, mode):
    door_folder.mkdir()
    door_folder.chmod(mode)
    with pytest.raises(PermissionError, match=rf"is open to other users \(mode {mode:o}, it must be 700\)"):
        with folder.opened(folder.path(), make=True):
            pass


def test_a_symbolic_link_to_a_folder_is_refused(door_folder, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    door_folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match=r"is no folder: remove it, or name another folder in GOLOOP_DEBUG_DIR"):
        with folder.opened(folder.path(), make=True):
            pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_in_its_place_is_refused(door_folder):
    door_folder.write_text("")
    with pytest.raises(PermissionError, match="is no folder"):
        with folder.opened(folder.path(), make=True):
            pass


def test_a_folder_of_another_user_is_refused(door_folder, monkeypatch):
    door_folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match=r"belongs to user \d+, not to you"):
        with folder.opened(folder.path(), make=True):
            pass


def test_what_is_put_in_place_of_a_folder_that_was_checked_is_not_used(fd, door_folder, tmp_path):
    door_folder.rename(tmp_path / "moved")
    door_folder.mkdir(mode=0o777)
    listener, _ = folder.listen(fd, 1, 1)
    with listener:
        assert [path.name for path in (tmp_path / "moved").iterdir()] == ["1.sock"]
        assert list(door_folder.iterdir()) == []


def test_a_missing_folder_is_missing(door_folder):
    with pytest.raises(FileNotFoundError):
        with folder.opened(folder.path()):
            pass


def test_a_socket_has_its_name_when_it_listens_and_not_before(fd, door_folder):
    listener, identity = folder.listen(fd, 4711, 1)
    with listener:
        assert folder.names(fd) == os.listdir(door_folder) == ["4711.sock"]
        assert folder.answers(fd, "4711.sock")
        folder.remove(fd, 4711, identity)
        assert os.listdir(door_folder) == []


def test_what_a_dead_process_of_the_same_number_has_left_is_replaced(fd, door_folder):
    dead, identity = folder.listen(fd, 4711, 1)
    dead.close()
    listener, _ = folder.listen(fd, 4711, 1)
    with listener:
        folder.remove(fd, 4711, identity)  # that of the dead one
        assert folder.answers(fd, "4711.sock")


def test_a_living_process_of_the_same_number_keeps_its_socket(fd):
    listener, _ = folder.listen(fd, 4711, 1)
    with listener:
        with pytest.raises(OSError, match="another process 4711 is served in this folder"):
            folder.listen(fd, 4711, 1)
        assert folder.answers(fd, "4711.sock")


def test_a_sweep_removes_what_nobody_listens_at_and_nothing_else(fd, door_folder):
    dead, _ = folder.listen(fd, 4711, 1)
    dead.close()
    never_named = socket.socket(socket.AF_UNIX)
    never_named.bind(str(door_folder / f".{2**22 + 1}.new"))  # beyond the greatest number of a process
    never_named.close()
    (door_folder / "notes.txt").write_text("mine")
    (door_folder / "17.sock").symlink_to("notes.txt")
    listener, _ = folder.listen(fd, 4712, 1)
    with listener:
        folder.sweep(fd)
        assert sorted(os.listdir(door_folder)) == ["17.sock", "4712.sock", "notes.txt"]


def test_a_process_with_a_full_backlog_is_there(fd):
    listener, _ = folder.listen(fd, 4711, 0)
    with listener, folder.connect(fd, "4711.sock"):
        with pytest.raises(TimeoutError):
            folder.connect(fd, "4711.sock", timeout=0.01)
        assert folder.answers(fd, "4711.sock")
