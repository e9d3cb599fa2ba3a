package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
	chdb "github.com/chdb-io/chdb-go/chdb-purego"
)

// server turns HTTP requests into queries. Every request has a connection of its own: settings and parameters end with it.
type server struct {
	dir, scratch string
	// What goes wrong: how many more inserts are stored and then not answered, and whether the process dies of the next.
	lose atomic.Int64
	die  atomic.Bool
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.query)
	mux.HandleFunc("POST /chtest/lose", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.lose.Store(n)
	})
	mux.HandleFunc("POST /chtest/die", func(http.ResponseWriter, *http.Request) { s.die.Store(true) })
	return mux
}

// transport are the parameters of a request that speak of the protocol; all others are settings of the query.
var transport = []string{
	"query", "query_id", "quota_key", "database", "default_format", "client_protocol_version", "compress", "decompress",
	"network_compression_method", "network_zstd_compression_level", "session_id", "user", "password", "wait_end_of_query",
	"chtest_format",
}

func (s *server) query(w http.ResponseWriter, r *http.Request) {
	arguments := r.URL.Query()
	body, err := requestBody(r, arguments)
	if err != nil {
		fail(w, err)
		return
	}
	sql := arguments.Get("query")
	insert := sql != "" && len(body) > 0
	if sql == "" {
		sql = string(body)
	}
	if sql == "" { // what a bare GET / answers
		_, _ = io.WriteString(w, "Ok.\n")
		return
	}
	if insert {
		file, err := s.keep(body)
		if err != nil {
			fail(w, err)
			return
		}
		defer os.Remove(file)
		sql = insertFrom(sql, file)
	}
	block, err := s.run(arguments, sql)
	if err != nil {
		fail(w, err)
		return
	}
	if insert {
		if s.die.Load() {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		if s.lose.Add(-1) >= 0 {
			panic(http.ErrAbortHandler) // closes the connection
		}
	}
	if arguments.Has("chtest_format") {
		_, _ = w.Write(block)
		return
	}
	answer(w, arguments, block)
}

// run asks the engine and returns its answer as Native blocks of revision 0, or in the format that chtest_format names.
func (s *server) run(arguments url.Values, sql string) ([]byte, error) {
	connection, err := chdb.NewConnectionFromConnString(s.dir)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	if database := arguments.Get("database"); database != "" {
		if _, err := ask(connection, "USE `"+strings.ReplaceAll(database, "`", "\\`")+"`", "Null"); err != nil {
			return nil, err
		}
	}
	var settings []string
	for name, values := range arguments {
		if slices.Contains(transport, name) {
			continue
		}
		if !settingName.MatchString(name) {
			return nil, fmt.Errorf("Code: 115. DB::Exception: Setting %q is neither a builtin setting nor started with the prefix. (UNKNOWN_SETTING)", name)
		}
		settings = append(settings, name+" = "+quote(values[0]))
	}
	if len(settings) > 0 {
		if _, err := ask(connection, "SET "+strings.Join(settings, ", "), "Null"); err != nil {
			return nil, err
		}
	}
	return ask(connection, sql, cmp.Or(arguments.Get("chtest_format"), "Native"))
}

var settingName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

func ask(connection chdb.ChdbConn, sql, format string) ([]byte, error) {
	result, err := connection.Query(sql, format)
	if err != nil {
		return nil, err
	}
	if result == nil {
		return nil, nil
	}
	defer result.Free()
	return bytes.Clone(result.Buf()), result.Error()
}

func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`).Replace(s) + "'"
}

// requestBody reads what was sent, decompressed.
func requestBody(r *http.Request, arguments url.Values) ([]byte, error) {
	if arguments.Get("decompress") != "1" {
		return io.ReadAll(r.Body)
	}
	return io.ReadAll(compress.NewReader(r.Body))
}

// keep writes the blocks of an insert to a file, from which the engine reads them.
func (s *server) keep(body []byte) (string, error) {
	file, err := os.CreateTemp(s.scratch, "*.native")
	if err != nil {
		return "", err
	}
	_, err = file.Write(body)
	return file.Name(), errors.Join(err, file.Close())
}

func insertFrom(sql, file string) string {
	if i := strings.LastIndex(strings.ToUpper(sql), "FORMAT"); i >= 0 {
		sql = sql[:i]
	}
	return sql + " FROM INFILE " + quote(file) + " FORMAT Native"
}

// answer writes the blocks again as the revision that the client asked for wants them.
func answer(w http.ResponseWriter, arguments url.Values, native []byte) {
	w.Header().Set("X-ClickHouse-Format", "Native")
	revision, _ := strconv.Atoi(arguments.Get("client_protocol_version"))
	reader := proto.NewReader(bytes.NewReader(native))
	var out bytes.Buffer
	packer := compress.NewWriter(0, compress.LZ4)
	for len(native) > 0 {
		var block proto.Block
		var columns proto.Results
		err := block.DecodeRawBlock(reader, 0, columns.Auto())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fail(w, fmt.Errorf("Code: 1002. DB::Exception: decode answer: %w", err))
			return
		}
		var input []proto.InputColumn
		for _, c := range columns {
			data, ok := c.Data.(proto.ColInput)
			if !ok {
				fail(w, fmt.Errorf("Code: 1002. DB::Exception: column %s of type %s cannot be sent again", c.Name, c.Data.Type()))
				return
			}
			input = append(input, proto.InputColumn{Name: c.Name, Data: data})
		}
		var buffer proto.Buffer
		if err := block.EncodeBlock(&buffer, revision, input); err != nil {
			fail(w, fmt.Errorf("Code: 1002. DB::Exception: encode answer: %w", err))
			return
		}
		data := buffer.Buf
		if arguments.Get("compress") == "1" {
			if err := packer.Compress(data); err != nil {
				fail(w, fmt.Errorf("Code: 1002. DB::Exception: compress answer: %w", err))
				return
			}
			data = packer.Data
		}
		out.Write(data)
	}
	_, _ = w.Write(out.Bytes())
}

var exceptionCode = regexp.MustCompile(`^\s*Code: (\d+)`)

// fail answers as ClickHouse does: with the code in a header, and the text.
func fail(w http.ResponseWriter, err error) {
	code := "1002" // UNKNOWN_EXCEPTION
	if m := exceptionCode.FindStringSubmatch(err.Error()); m != nil {
		code = m[1]
	}
	w.Header().Set("X-ClickHouse-Exception-Code", code)
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = io.WriteString(w, err.Error())
}
