// Package migrations holds the numbered SQL that makes and changes the database schemas. The adapters run it with
// goose when they open a database.
package migrations

import "embed"

// SQLite is the schema of the embedded store, in the folder sqlite.
//
//go:embed sqlite/*.sql
var SQLite embed.FS

// SQLiteLog is the schema of the embedded query log, in the folder sqlitelog.
//
//go:embed sqlitelog/*.sql
var SQLiteLog embed.FS
