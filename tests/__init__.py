"""The project's tests. A regular package: packages that install a `tests` of their own (learn2learn) must not hide it."""
