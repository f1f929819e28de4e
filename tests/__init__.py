"""The project's tests. A regular package, so that packages which install a `tests` (learn2learn) do not hide it."""
