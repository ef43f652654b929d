"""Object stores that two data directories could use, as tests look into them and damage them."""

from __future__ import annotations

from pathlib import Path

from testserver import Server


class Folder:
    """A folder."""

    def __init__(self, root: Path):
        self.root = root
        self.url = root.as_uri()

    def read(self) -> dict[str, bytes]:
        # Other processes are at work: what they are about to rename or remove is left out.
        files = [f for f in self.root.rglob("*") if f.is_file() and f.name != "LOCK" and f.suffix != ".tmp"]
        return {str(file.relative_to(self.root)): file.read_bytes() for file in files}

    def write(self, path: str, content: bytes) -> None:
        (self.root / path).write_bytes(content)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()


class Bucket:
    """A bucket on an S3 server, below a prefix."""

    def __init__(self, s3, bucket: str):
        self.s3, self.bucket = s3, bucket
        self.url = f"s3://{bucket}/here"

    def read(self) -> dict[str, bytes]:
        listed = [o["Key"] for o in self.s3.list_objects_v2(Bucket=self.bucket, Prefix="here/").get("Contents", [])]
        found = {}
        for key in listed:
            if "/probe-" in key:
                continue
            try:
                found[key.removeprefix("here/")] = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except self.s3.exceptions.NoSuchKey:
                pass  # removed since it was listed
        return found

    def write(self, path: str, content: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=f"here/{path}", Body=content)

    def remove(self, path: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=f"here/{path}")


def server_on(folder: Path, url: str, *args: str, lease_seconds: int = 2, settings: str = "") -> Server:
    """A server on the object store, not started yet. `settings`: further lines of its configuration.

    It merges no files by itself, so that tests know which there are.
    """
    config = folder.with_suffix(".toml")
    storage = f"[storage]\nlease_seconds = {lease_seconds}\norphan_grace_seconds = 0\n"
    config.write_text(f"{storage}[compaction]\nautomatic = false\n{settings}")
    return Server(folder, args=["--object-store", url, "--config", str(config), *args])
