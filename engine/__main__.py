"""`python -m engine` is `stackseg`, for where the command is not on the path."""

from _stackseg import main

main()
