package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
)

// web answers ClickHouse's HTTP protocol, and below /chtest/ what tests ask for.
type web struct{ *engine }

func (w web) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", w.query)
	number := func(set func(int64)) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
			if err != nil {
				http.Error(rw, err.Error(), http.StatusBadRequest)
				return
			}
			set(n)
		}
	}
	mux.HandleFunc("POST /chtest/lose", number(w.lose.Store))
	mux.HandleFunc("POST /chtest/delay", number(func(ms int64) { w.delay.Store(ms * int64(time.Millisecond)) }))
	mux.HandleFunc("POST /chtest/die", func(http.ResponseWriter, *http.Request) { w.die.Store(true) })
	mux.HandleFunc("POST /chtest/account", func(_ http.ResponseWriter, r *http.Request) {
		a := &account{r.FormValue("user"), r.FormValue("password")}
		if a.user == "" {
			a = nil
		}
		w.account.Store(a)
	})
	mux.HandleFunc("POST /chtest/count", number(func(on int64) { w.count.Store(on != 0) }))
	mux.HandleFunc("POST /chtest/read", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, w.read.Load()) })
	mux.HandleFunc("POST /chtest/inserts", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, w.wrote.Load()) })
	return mux
}

// transport are the parameters of a request that speak of the protocol; all others are settings of the query.
var transport = []string{
	"query", "query_id", "quota_key", "database", "default_format", "client_protocol_version", "compress", "decompress",
	"network_compression_method", "network_zstd_compression_level", "session_id", "user", "password", "wait_end_of_query",
	"chtest_format",
}

func (w web) query(rw http.ResponseWriter, r *http.Request) {
	arguments := r.URL.Query()
	body, err := requestBody(r, arguments)
	if err != nil {
		fail(rw, err)
		return
	}
	ours := arguments.Has("chtest_format") // a test asks by itself
	user, password, _ := r.BasicAuth()
	err = w.admit(cmp.Or(r.Header.Get("X-ClickHouse-User"), user), cmp.Or(r.Header.Get("X-ClickHouse-Key"), password))
	if err != nil && !ours {
		fail(rw, err)
		return
	}
	q := request{
		database: arguments.Get("database"), settings: map[string]string{}, parameters: map[string]string{},
		sql: arguments.Get("query"), format: cmp.Or(arguments.Get("chtest_format"), "Native"),
	}
	for name, values := range arguments {
		if parameter, ok := strings.CutPrefix(name, "param_"); ok {
			q.parameters[parameter] = quote(values[0])
		} else if !slices.Contains(transport, name) {
			q.settings[name] = values[0]
		}
	}
	if q.sql != "" && len(body) > 0 {
		switch err := w.insert(q, body); {
		case errors.Is(err, errNoAnswer):
			panic(http.ErrAbortHandler) // closes the connection
		case err != nil:
			fail(rw, err)
		}
		return
	}
	q.sql = cmp.Or(q.sql, string(body))
	if q.sql == "" { // what a bare GET / answers
		fmt.Fprintln(rw, "Ok.")
		return
	}
	native, rowsRead, err := w.run(q)
	if err != nil {
		fail(rw, err)
		return
	}
	rw.Header().Set("X-ClickHouse-Summary", fmt.Sprintf(`{"read_rows":"%d"}`, rowsRead))
	if ours {
		_, _ = rw.Write(native)
		return
	}
	answer(rw, arguments, native)
}

// requestBody reads what was sent, decompressed.
func requestBody(r *http.Request, arguments url.Values) ([]byte, error) {
	if arguments.Get("decompress") != "1" {
		return io.ReadAll(r.Body)
	}
	body, err := io.ReadAll(compress.NewReader(r.Body))
	if errors.Is(err, io.EOF) { // the reader wraps it
		err = nil
	}
	return body, err
}

// answer writes the blocks again as the revision that the client asked for wants them.
func answer(rw http.ResponseWriter, arguments url.Values, native []byte) {
	revision, _ := strconv.Atoi(arguments.Get("client_protocol_version"))
	packer := compress.NewWriter(0, compress.LZ4)
	var out []byte
	err := eachBlock(native, func(block proto.Block, columns []proto.InputColumn) error {
		var buffer proto.Buffer
		if err := block.EncodeBlock(&buffer, revision, columns); err != nil {
			return err
		}
		data := buffer.Buf
		if arguments.Get("compress") == "1" {
			if err := packer.Compress(data); err != nil {
				return err
			}
			data = packer.Data
		}
		out = append(out, data...)
		return nil
	})
	if err != nil {
		fail(rw, err)
		return
	}
	rw.Header().Set("X-ClickHouse-Format", "Native")
	_, _ = rw.Write(out)
}

// fail answers as ClickHouse does: with the code in a header, and the text.
func fail(rw http.ResponseWriter, err error) {
	e := toException(err)
	rw.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.code))
	status := http.StatusInternalServerError
	if e.code == 516 {
		status = http.StatusForbidden
	}
	rw.WriteHeader(status)
	fmt.Fprint(rw, e.text)
}
