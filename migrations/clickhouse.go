package migrations

import "embed"

// ClickHouse is the schema of the query log in ClickHouse, in the folder clickhouse. The files are templates: the adapter
// fills in what differs between one server and a cluster. ClickHouse has no transactions for them, so each statement may
// be run again, and by two at once.
//
//go:embed clickhouse/*.sql
var ClickHouse embed.FS
