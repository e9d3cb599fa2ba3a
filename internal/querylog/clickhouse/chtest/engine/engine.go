package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	chdb "github.com/chdb-io/chdb-go/chdb-purego"
)

// engine is the embedded ClickHouse and what is to go wrong with it.
type engine struct {
	dir, scratch string

	lose  atomic.Int64  // how many more inserts are stored and then not answered
	die   atomic.Bool   // whether the process dies of the next insert, stored and not answered
	delay atomic.Int64  // before each answer, in nanoseconds
	count atomic.Bool   // whether to count the rows that statements read
	read  atomic.Uint64 // rows that were counted
	wrote atomic.Uint64 // inserts so far

	account atomic.Pointer[account] // nil: anybody is let in
}

type account struct{ user, password string }

// request is a statement and what it runs with. It has a connection of its own, with which settings and parameters end.
type request struct {
	database   string
	settings   map[string]string
	parameters map[string]string // as SQL literals
	sql        string
	format     string // of the answer
}

// exception is an error as ClickHouse tells it.
type exception struct {
	code int
	text string
}

func (e exception) Error() string { return e.text }

func newException(code int, name, format string, values ...any) exception {
	return exception{code, fmt.Sprintf("Code: %d. DB::Exception: %s. (%s)", code, fmt.Sprintf(format, values...), name)}
}

var codeOf = regexp.MustCompile(`^\s*Code: (\d+)`)

// toException reads the code out of the text, the only place where the library has it.
func toException(err error) exception {
	if e := (exception{}); errors.As(err, &e) {
		return e
	}
	e := exception{1002, err.Error()} // UNKNOWN_EXCEPTION
	if m := codeOf.FindStringSubmatch(e.text); m != nil {
		e.code, _ = strconv.Atoi(m[1])
	}
	return e
}

// admit lets in who may sign in.
func (e *engine) admit(user, password string) error {
	if a := e.account.Load(); a != nil && *a != (account{user, password}) {
		return newException(516, "AUTHENTICATION_FAILED", "%s: Authentication failed: password is incorrect, or there is no user with such name", user)
	}
	return nil
}

var settingName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// run asks the library.
func (e *engine) run(r request) (answer []byte, rowsRead uint64, err error) {
	connection, err := chdb.NewConnectionFromConnString(e.dir)
	if err != nil {
		return nil, 0, err
	}
	defer connection.Close()
	if r.database != "" {
		if _, _, err := ask(connection, "USE `"+strings.ReplaceAll(r.database, "`", "\\`")+"`", "Null"); err != nil {
			return nil, 0, err
		}
	}
	var set []string
	for _, name := range slices.Sorted(maps.Keys(r.settings)) {
		if !settingName.MatchString(name) {
			return nil, 0, newException(115, "UNKNOWN_SETTING", "Unknown setting '%s'", name)
		}
		set = append(set, name+" = "+quote(r.settings[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(r.parameters)) {
		set = append(set, "param_"+name+" = "+r.parameters[name])
	}
	if len(set) > 0 {
		if _, _, err := ask(connection, "SET "+strings.Join(set, ", "), "Null"); err != nil {
			return nil, 0, err
		}
	}
	answer, rowsRead, err = ask(connection, r.sql, r.format)
	if err == nil && e.count.Load() && selecting.MatchString(r.sql) {
		// The library tells how many rows an answer has; how many were read for it stands in this format only.
		told, _, err := ask(connection, r.sql, "JSONCompact")
		if err != nil {
			return nil, 0, err
		}
		if m := rowsReadOf.FindSubmatch(told); m != nil {
			n, _ := strconv.ParseUint(string(m[1]), 10, 64)
			e.read.Add(n)
		}
	}
	<-time.After(time.Duration(e.delay.Load()))
	return answer, rowsRead, err
}

var (
	selecting  = regexp.MustCompile(`(?i)^\s*(SELECT|WITH)\b`)
	rowsReadOf = regexp.MustCompile(`"rows_read": (\d+),\s*"bytes_read": \d+\s*\}\s*\}\s*$`)
)

func ask(connection chdb.ChdbConn, sql, format string) (answer []byte, rowsRead uint64, err error) {
	result, err := connection.Query(sql, format)
	if err != nil || result == nil {
		return nil, 0, err
	}
	defer result.Free()
	return bytes.Clone(result.Buf()), result.RowsRead(), result.Error()
}

var errNoAnswer = errors.New("the insert is stored, and not to be answered")

// insert stores blocks of Native of revision 0. errNoAnswer says that the connection is to be closed instead of an answer.
func (e *engine) insert(r request, blocks []byte) error {
	file, err := e.keep(blocks)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file) }() // its folder goes at the end
	sql := r.sql
	if i := strings.LastIndex(strings.ToUpper(sql), "FORMAT"); i >= 0 {
		sql = sql[:i]
	}
	r.sql, r.format = sql+" FROM INFILE "+quote(file)+" FORMAT Native", "Null"
	if _, _, err := e.run(r); err != nil {
		return err
	}
	e.wrote.Add(1)
	if e.die.Load() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	if e.lose.Add(-1) >= 0 {
		return errNoAnswer
	}
	return nil
}

// keep writes the blocks of an insert to a file, from which the library reads them.
func (e *engine) keep(blocks []byte) (string, error) {
	file, err := os.CreateTemp(e.scratch, "*.native")
	if err != nil {
		return "", err
	}
	_, err = file.Write(blocks)
	return file.Name(), errors.Join(err, file.Close())
}

func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`).Replace(s) + "'"
}
