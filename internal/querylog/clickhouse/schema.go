package clickhouse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"text/template"
	"time"
)

// schema is what the templates in migrations/clickhouse need to know. None of it comes from outside but the name of the
// cluster, which Open has checked.
type schema struct {
	Cluster              string // quoted, "" for one server
	OnCluster            string
	Local                string // what the names of tables that hold rows end with
	MergeTree            string
	AggregatingMergeTree string
	DedupWindow          string
	RetentionSeconds     int64
}

func newSchema(o Options) schema {
	s := schema{
		MergeTree: "MergeTree", AggregatingMergeTree: "AggregatingMergeTree",
		DedupWindow:      fmt.Sprintf("non_replicated_deduplication_window = %d", DedupWindow),
		RetentionSeconds: int64(o.Retention / time.Second),
	}
	if o.Cluster != "" {
		s.Cluster = "'" + o.Cluster + "'"
		s.OnCluster = " ON CLUSTER " + s.Cluster
		s.Local = "_local"
		s.MergeTree, s.AggregatingMergeTree = "ReplicatedMergeTree", "ReplicatedAggregatingMergeTree"
		s.DedupWindow = fmt.Sprintf("replicated_deduplication_window = %d, replicated_deduplication_window_seconds = %d", DedupWindow, 7*24*3600)
	}
	return s
}

// render fills in a template.
func (s schema) render(text string) (string, error) {
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = t.Execute(&out, s)
	return out.String(), err
}

// rendered is a file system whose SQL files are filled in when they are opened.
type rendered struct {
	fs.FS
	schema schema
}

// Open opens a file or folder.
func (r rendered) Open(name string) (fs.File, error) {
	file, err := r.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return file, err
	}
	text, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	sql, err := r.schema.render(string(text))
	if err != nil {
		return nil, &fs.PathError{Op: "fill in", Path: name, Err: err}
	}
	return memoryFile{File: file, text: bytes.NewReader([]byte(sql))}, nil
}

type memoryFile struct {
	fs.File
	text *bytes.Reader
}

// Read reads what was filled in.
func (f memoryFile) Read(b []byte) (int, error) { return f.text.Read(b) }

// Close has nothing to close.
func (memoryFile) Close() error { return nil }
