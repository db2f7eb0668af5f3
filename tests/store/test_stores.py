"""What every store of a job must do: one class of tests, and a subclass for each store."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import OutputError
from engine.store.local_store import LocalStore
from engine.store.object_store import ObjectStore, digest_of, get_checked
from tests.store.memory import Memory, MemoryStore

KEY = "embryo.zarr/labels/nuclei/0/c/0/0/0"


class StoreTests:
    """See `engine.store.object_store.ObjectStore`."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        """An empty store."""
        raise NotImplementedError

    @pytest.mark.parametrize("durable", [True, False])
    def test_an_object_is_what_was_put_last(self, store: ObjectStore, durable: bool) -> None:
        for data in (b"one", b"", bytes(range(256)) * 999):
            store.put(KEY, data, durable=durable)
            assert store.get(KEY) == data and store.exists(KEY)
            with store.open(KEY) as file:
                file.seek(len(data) // 2)
                assert file.read() == data[len(data) // 2 :]

    def test_where_nothing_is(self, store: ObjectStore) -> None:
        store.put(KEY, b"x")
        for key in ("other", f"{KEY}1", "embryo.zarr/labels"):
            assert not store.exists(key)
            for read in (store.get, store.open, store.stamp):
                with pytest.raises(OSError):
                    read(key)
        for prefix in ("other", "embryo", "embryo.zarr/labels/nuclei/0/c/0/0/0"):
            assert [*store.list(prefix)] == [] and [*store.children(prefix)] == []
        for key in ("other", "other/place"):
            store.delete(key)
            store.delete_all(key)
        assert not store.holds("other") and not store.holds("embryo")
        assert store.get(KEY) == b"x"

    def test_what_is_there_is_listed(self, store: ObjectStore) -> None:
        keys = {"a/b/1", "a/b/c/2", "a/3", "ab/4", "5"}
        for key in keys:
            store.put(key, key.encode())
        assert {*store.list("a")} == {"a/b/1", "a/b/c/2", "a/3"}
        assert {*store.list("a/b")} == {"a/b/1", "a/b/c/2"}
        assert sorted(store.children("a")) == ["3", "b"]
        assert sorted(store.children("a/b")) == ["1", "c"]
        assert all(map(store.holds, ("a", "a/b/c", "a/3", "5"))) and not store.holds("a/b/c/1")

    def test_what_is_deleted_is_gone(self, store: ObjectStore) -> None:
        for key in ("a/1", "a/2", "a/b/3", "ab/4"):
            store.put(key, b"x")
        store.delete("a/1")
        store.delete("a/2", durable=False)
        assert {*store.list("a")} == {"a/b/3"}
        store.delete_all("a")
        assert not store.holds("a") and store.exists("ab/4")
        store.put("a/1", b"again")
        assert store.get("a/1") == b"again"

    def test_a_large_object_is_put_whole_or_not_at_all(self, store: ObjectStore) -> None:
        store.put(KEY, b"before")
        with store.writing(KEY) as place:
            place.write_bytes(b"a" * 9999)
            assert store.get(KEY) == b"before"
        assert store.get(KEY) == b"a" * 9999
        for error in (ValueError, KeyboardInterrupt):
            with pytest.raises(error), store.writing(KEY) as place:
                place.write_bytes(b"half")
                raise error
            assert store.get(KEY) == b"a" * 9999
        assert [*store.list("embryo.zarr")] == [KEY]

    def test_writers_at_once_leave_one_of_what_they_put(self, store: ObjectStore) -> None:
        contents = [bytes([n]) * 50_000 for n in range(16)]
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda data: store.put(KEY, data), contents):
                assert store.get(KEY) in contents
        assert store.get(KEY) in contents

    def test_a_stamp_is_of_one_object(self, store: ObjectStore) -> None:
        stamps = []
        for data in (b"a", b"b", b"a"):
            store.put(KEY, data)
            assert store.stamp(KEY) == store.stamp(KEY)
            stamps.append(store.stamp(KEY))
        assert len(set(stamps)) == 3

    def test_a_lease_is_held_by_one_or_shared(self, store: ObjectStore) -> None:
        with store.lease("lock") as mine:
            assert mine
            with store.lease("lock") as other, store.lease("lock", shared=True) as reader:
                assert not other and not reader
            with store.lease("lock") as still, store.lease("another") as free:
                assert not still and free
        with store.lease("lock", shared=True) as one, store.lease("lock", shared=True) as two:
            assert one and two
            with store.lease("lock") as mine:
                assert not mine
        with pytest.raises(KeyError), store.lease("lock") as mine:
            assert mine
            raise KeyError
        with store.lease("lock") as mine:
            assert mine

    def test_a_message_names_the_object(self, store: ObjectStore) -> None:
        assert store.where(KEY) == f"{store.where()}/{KEY}"

    def test_checksums(self, store: ObjectStore) -> None:
        store.put(KEY, b"x" * 99_999)
        digest = hashlib.sha256(b"x" * 99_999).hexdigest()
        assert digest_of(store, KEY) == digest
        assert get_checked(store, KEY, digest) == b"x" * 99_999
        for wrong in (digest[:-1], None):
            with pytest.raises(ValueError, match="SHA-256 differs"):
                get_checked(store, KEY, wrong)


class TestLocalStore(StoreTests):
    """Objects on the local disk."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        (tmp_path / "own").mkdir()
        return LocalStore(tmp_path / "results", tmp_path / "own/staging", tmp_path / "own")

    def test_nothing_is_put_where_the_jobs_folder_is_gone(
        self, tmp_path: Path, store: LocalStore
    ) -> None:
        """With its disk, perhaps: the folder beneath is another's."""
        store.put(KEY, b"x")
        for name in ("own", "results"):
            shutil.rmtree(tmp_path / name)
        for durable in (True, False):
            with pytest.raises(OutputError, match="cannot be written"):
                store.put(KEY, b"y", durable=durable)
        assert [*tmp_path.iterdir()] == []

    def test_an_empty_folder_holds_its_name(self, store: LocalStore) -> None:
        (store.root / "embryo.zarr").mkdir(parents=True)
        assert store.holds("embryo.zarr") and not store.exists("embryo.zarr")

    def test_what_cannot_be_written_is_one_sentence(self, store: LocalStore) -> None:
        store.put("a", b"x")
        for write in (lambda: store.put("a/b", b"y"), lambda: store.delete_all("a")):
            with pytest.raises(OutputError, match=r"^\S+a(/b)?: cannot be written \("):
                write()
        assert store.get("a") == b"x"


class TestMemoryStore(StoreTests):
    """Objects in memory, for tests."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> MemoryStore:
        return MemoryStore(Memory())
