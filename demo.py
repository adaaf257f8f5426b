"""A page in the browser: a photograph, two pads for gaze and head, and what becomes of it: python demo.py

It offers the redirector that comes along, those below runs/, and one that is named: --checkpoint RUN. It is seen on
this computer alone, and asks nothing of any other.
"""

import sys
from collections.abc import Sequence

from core.command import answer


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 when the user ended it, 2 for what cannot be used, 130 if stopped before it began."""
    from core.page.command import parse

    arguments = parse(argv, __doc__ or "")

    def run() -> None:
        # Imported in here, so that Ctrl-C in a slow import is answered.
        from core.page.command import serve

        serve(arguments)

    return answer("demo.py", run)


if __name__ == "__main__":
    sys.exit(main())
