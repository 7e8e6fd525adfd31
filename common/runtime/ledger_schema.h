#pragma once
// The tables and views of run.db. The views are for people with a sqlite3 shell; the programs fold
// the events themselves (run_view.h).

namespace weft {

/// PRAGMA user_version of the layout below, and application_id "WEFT".
inline constexpr int kLedgerSchemaVersion = 2;
inline constexpr int kLedgerApplicationId = 0x57454654;

inline constexpr const char* kLedgerSchema = R"sql(
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY,
  wall_us INTEGER NOT NULL,
  kind TEXT NOT NULL,
  body TEXT NOT NULL,
  prev_hash TEXT NOT NULL,
  hash TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS events_are_never_changed BEFORE UPDATE ON events
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_are_never_deleted BEFORE DELETE ON events
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE VIEW IF NOT EXISTS run AS
  SELECT json_extract(s.body, '$.run') AS run,
         json_extract(s.body, '$.strategy') AS strategy,
         json_extract(s.body, '$.seed') AS seed,
         json_extract(s.body, '$.num_server_rounds') AS num_server_rounds,
         json_extract(s.body, '$.base_hash') AS base_hash,
         json_extract(s.body, '$.adapter.rank') AS rank,
         datetime(s.wall_us / 1000000, 'unixepoch') AS started_utc,
         (SELECT json_extract(f.body, '$.state') FROM events f
           WHERE f.kind = 'run-finished' ORDER BY f.seq DESC LIMIT 1) AS finished,
         (SELECT json_extract(f.body, '$.reason') FROM events f
           WHERE f.kind = 'run-finished' ORDER BY f.seq DESC LIMIT 1) AS reason
  FROM events s WHERE s.kind = 'run-started';

CREATE VIEW IF NOT EXISTS members AS
  SELECT json_extract(body, '$.client') AS client,
         kind,
         datetime(wall_us / 1000000, 'unixepoch') AS at_utc,
         json_extract(body, '$.rank') AS rank,
         json_extract(body, '$.capabilities.device') AS device,
         json_extract(body, '$.capabilities.memory_mb') AS memory_mb,
         json_extract(body, '$.capabilities.num_examples') AS num_examples,
         json_extract(body, '$.capabilities.eval_examples') AS eval_examples,
         json_extract(body, '$.reason') AS reason
  FROM events WHERE kind IN ('member-joined', 'member-gone');

CREATE VIEW IF NOT EXISTS rounds AS
  SELECT json_extract(p.body, '$.round') AS round,
         datetime(p.wall_us / 1000000, 'unixepoch') AS published_utc,
         json_extract(p.body, '$.adapter_sha256') AS adapter_sha256,
         json_extract(p.body, '$.merge_s') AS merge_s,
         json_extract(p.body, '$.certificate.error_before_truncation') AS error_before_truncation,
         json_extract(p.body, '$.certificate.error_published') AS error_published,
         json_extract(p.body, '$.certificate.tail_energy') AS tail_energy,
         json_extract(p.body, '$.certificate.effective_rank') AS effective_rank,
         (SELECT count(*) FROM events u WHERE u.kind = 'update-accepted'
           AND coalesce(nullif(json_extract(u.body, '$.round'), 0),
                  json_extract(u.body, '$.header.round'))
               = json_extract(p.body, '$.round'))
         - (SELECT count(*) FROM events l WHERE l.kind = 'update-lost'
           AND json_extract(l.body, '$.round') = json_extract(p.body, '$.round')) AS accepted,
         (SELECT json_extract(e.body, '$.loss') FROM events e WHERE e.kind = 'server-evaluated'
           AND json_extract(e.body, '$.version') = json_extract(p.body, '$.round')
           ORDER BY e.seq DESC LIMIT 1) AS server_loss,
         (SELECT sum(json_extract(e.body, '$.report.loss')
                     * json_extract(e.body, '$.report.label_tokens'))
                 / sum(json_extract(e.body, '$.report.label_tokens'))
           FROM events e WHERE e.kind = 'eval-reported'
           AND json_extract(e.body, '$.report.version') = json_extract(p.body, '$.round'))
           AS clients_loss
  FROM events p WHERE p.kind = 'round-published';

CREATE VIEW IF NOT EXISTS updates AS
  SELECT coalesce(nullif(json_extract(a.body, '$.round'), 0),
                  json_extract(a.body, '$.header.round')) AS round,
         json_extract(a.body, '$.header.round') AS asked_in,
         json_extract(a.body, '$.header.client') AS client,
         json_extract(a.body, '$.header.spec.rank') AS rank,
         json_extract(a.body, '$.header.num_examples') AS num_examples,
         json_extract(a.body, '$.header.label_tokens') AS label_tokens,
         json_extract(a.body, '$.header.steps') AS steps,
         json_extract(a.body, '$.header.train_loss') AS train_loss,
         json_extract(a.body, '$.update_norm') AS update_norm,
         json_extract(a.body, '$.bytes') AS bytes,
         json_extract(a.body, '$.header.times.train_s') AS train_s,
         json_extract(a.body, '$.upload_s') AS upload_s,
         json_extract(a.body, '$.admit_s') AS admit_s,
         json_extract(a.body, '$.header.payload_sha256') AS payload_sha256
  FROM events a LEFT JOIN
       (SELECT json_extract(body, '$.round') AS round, json_extract(body, '$.client') AS client,
               max(seq) AS seq
        FROM events WHERE kind = 'update-lost' GROUP BY 1, 2) lost
       ON lost.round = coalesce(nullif(json_extract(a.body, '$.round'), 0),
                  json_extract(a.body, '$.header.round'))
          AND lost.client = json_extract(a.body, '$.header.client') AND lost.seq > a.seq
  WHERE a.kind = 'update-accepted' AND lost.seq IS NULL;
)sql";

}  // namespace weft
