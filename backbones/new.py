"""Write a commented template of a denoiser backbone, and its contract test.

python -m backbones.new my_net
python -m backbones.new my_net --folder somewhere
"""

from __future__ import annotations

import argparse
import keyword
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from backbones.registry import BACKBONES

__all__ = ["main", "write_template"]

_TEMPLATES = Path(__file__).with_name("templates")
_FILES = ("my_net.py", "test_my_net.py")


def write_template(name: str, folder: Path) -> list[Path]:
    """Write ``<name>.py`` and ``test_<name>.py``, and return both.

    Args:
        name: of the backbone, in lower case and underscores, e.g. ``my_net``.
        folder: where; made if need be.

    Raises:
        ValueError: no such name, or one that is registered.
        FileExistsError: a file of that name is there.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        fit = "".join(c if c.isalnum() and c.isascii() else "_" for c in name.lower())
        nearest = fit if fit.isidentifier() and not keyword.iskeyword(fit) else f"net_{fit}"
        raise ValueError(
            f"name {name!r}: expected lower case letters, digits and underscores, e.g. {nearest}"
        )
    if name in BACKBONES:
        raise ValueError(f"name {name!r} is a registered backbone; expected a new one")
    camel = "".join(part.capitalize() for part in name.split("_")) or "Net"
    written = [(folder / file.replace("my_net", name), file) for file in _FILES]
    for path, _ in written:
        if path.exists():
            raise FileExistsError(f"{path} is there already; expected a new name or folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path, file in written:
        text = (_TEMPLATES / file).read_text("utf-8")
        path.write_text(text.replace("my_net", name).replace("MyNet", camel), "utf-8")
    return [path for path, _ in written]


def main(arguments: list[str] | None = None) -> int:
    """Write the template that the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser("backbones.new", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", help="of the backbone, e.g. my_net")
    parser.add_argument("--folder", type=Path, default=Path(), help="where (default: here)")
    flags = parser.parse_args(arguments)
    try:
        module, test = write_template(flags.name, flags.folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(module)
    print(test)
    print(f"next: pytest --backbone-module {module}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
