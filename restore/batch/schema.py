"""Tables of the manifest, and how a new listing is merged into them."""

FORMAT = 1
"""Version of the tables; a manifest of another version is refused."""

TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,            -- path below SRC
    kind TEXT NOT NULL,                  -- picture, clip
    size INTEGER NOT NULL,               -- of the source, in bytes
    stamp TEXT NOT NULL,                 -- changes when the source is written again
    name TEXT NOT NULL DEFAULT '',       -- path below DST; of a clip without its suffix
    claim TEXT UNIQUE,                   -- what no other item may become; NULL = nothing
    state TEXT NOT NULL,                 -- waiting, pending, running, split, done, failed
    begun INTEGER NOT NULL DEFAULT 0,    -- what lies at its name is ours, or may be replaced
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',      -- why it failed; of one that is done: its damage
    notes TEXT NOT NULL DEFAULT '',
    output TEXT NOT NULL DEFAULT '',     -- path below DST of the finished result
    seconds REAL NOT NULL DEFAULT 0,     -- working time of the last result
    frames INTEGER NOT NULL DEFAULT 0,
    worker INTEGER,
    finished REAL                        -- when, in seconds since 1970
);
CREATE INDEX IF NOT EXISTS by_state ON items (state, attempts, kind, id);
CREATE INDEX IF NOT EXISTS by_time ON items (finished);
CREATE TABLE IF NOT EXISTS pieces (
    item INTEGER NOT NULL,
    number INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    "begin" INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    worker INTEGER,
    seconds REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (item, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pieces_by_state ON pieces (state);
"""

LISTING = """
CREATE TEMP TABLE found (
    key TEXT PRIMARY KEY, kind TEXT, size INTEGER, stamp TEXT,
    plain TEXT, plain_claim TEXT, full TEXT, full_claim TEXT
) WITHOUT ROWID;
CREATE INDEX temp.found_claims ON found (plain_claim);
CREATE TEMP TABLE present (claim TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE moved (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""

RECOVER = """
UPDATE items SET state = CASE
    WHEN EXISTS (SELECT 1 FROM pieces WHERE item = items.id) THEN 'split' ELSE 'pending' END
WHERE state = 'running';
UPDATE pieces SET state = 'pending' WHERE state = 'running';
"""
"""After a driver died, or as it leaves: what was in work is to be done."""

MERGE = (
    # What stood still since the last look is whole; what moved is looked at again.
    """INSERT INTO moved SELECT f.key FROM found AS f JOIN items USING (key)
    WHERE (f.size, f.stamp) IS NOT (items.size, items.stamp)""",
    """UPDATE items SET state = 'pending'
    WHERE state = 'waiting' AND key NOT IN (SELECT key FROM moved)""",
    # What changed at its source is done again; what is in work now, after the next look.
    """UPDATE items SET state = :fresh, attempts = 0, error = '', size = f.size, stamp = f.stamp
    FROM found AS f WHERE f.key = items.key AND state NOT IN ('running', 'split')
    AND items.key IN (SELECT key FROM moved)""",
    """UPDATE items SET state = 'pending', attempts = 0, error = ''
    WHERE state = 'done' AND key IN (SELECT key FROM found)
    AND output NOT IN (SELECT claim FROM present)""",
    # What is no longer there, or no longer wanted, is not waited for.
    """DELETE FROM items WHERE state NOT IN ('done', 'running', 'split')
    AND key NOT IN (SELECT key FROM found)""",
    # Names of what never began are settled anew, as the tree may have changed.
    "UPDATE items SET claim = NULL WHERE NOT begun AND state != 'done'",
    """INSERT INTO items (key, kind, size, stamp, state, begun)
    SELECT key, kind, size, stamp, :fresh, :overwrite FROM found
    WHERE key NOT IN (SELECT key FROM items) ORDER BY key""",
    # Two that would share a name get the suffixes of their inputs into theirs.
    """UPDATE OR IGNORE items SET name = f.plain, claim = f.plain_claim
    FROM found AS f WHERE f.key = items.key AND items.claim IS NULL AND 1 = (
    SELECT count(*) FROM found AS other WHERE other.plain_claim = f.plain_claim)""",
    """UPDATE OR IGNORE items SET name = f.full, claim = f.full_claim
    FROM found AS f WHERE f.key = items.key AND items.claim IS NULL""",
    """UPDATE items SET state = 'failed', attempts = 0, error =
    'its result would have the name of another one; rename it, or move it elsewhere'
    WHERE claim IS NULL""",
    """UPDATE items SET state = 'failed', attempts = 0, error = '''' || name ||
    (CASE kind WHEN 'clip' THEN '.*' ELSE '' END) ||
    ''' is already there, and not of this batch; add --overwrite, or give another DST'
    WHERE NOT begun AND state IN ('pending', 'waiting')
    AND claim IN (SELECT claim FROM present)""",
    """DELETE FROM pieces WHERE item NOT IN (
    SELECT id FROM items WHERE state IN ('split', 'running'))""",
)
"""How a listing becomes items. Parameters: fresh, the state of what is new; overwrite, 0 or 1."""
