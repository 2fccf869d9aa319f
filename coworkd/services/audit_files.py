"""The audit log on disk: one directory, one writer, blocking verbs.

Layout and names: `auditlog.rotation`. Rules
- The directory is 0700, every file 0600. An flock(2) on the directory keeps a second writer out; it ends with the process.
- `commit` returns only after fdatasync(2). Where any step fails the file is cut back to what was durable before it is
  written again, so a record that was refused is not in the log. (If the cut fails as well, the next commit tries again
  first; until then nothing is written.)
- ENOSPC frees the reserve once and tries again; the reserve is taken back when there is room for four of it.
- At open a torn last line is cut off and recorded; complete lines that are no records are evidence, so they stay, the log goes
  on in a new file after an `audit.damaged` record, and `verify` goes on telling it.

Not thread-safe: `services.audit` calls one verb at a time, from a worker thread. It does not judge records.

Sources: fsync(2), flock(2), posix_fallocate(3), open(2) O_NOFOLLOW.
"""
