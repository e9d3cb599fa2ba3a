package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"modernc.org/sqlite"
)

// conn is one connection, for one goroutine at a time. It speaks to the driver itself: database/sql would cost more for
// each value than SQLite does.
type conn struct {
	raw interface {
		driver.Conn
		driver.ConnPrepareContext
	}
	stmts map[string]*stmt
}

func openConn(path string, pragmas ...string) (*conn, error) {
	source, err := dataSource(path, pragmas...)
	if err != nil {
		return nil, err
	}
	opened, err := new(sqlite.Driver).Open(source)
	if err != nil {
		return nil, err
	}
	raw, ok := opened.(interface {
		driver.Conn
		driver.ConnPrepareContext
	})
	if !ok {
		return nil, errors.Join(fmt.Errorf("driver lacks an interface: %T", opened), opened.Close())
	}
	return &conn{raw: raw, stmts: map[string]*stmt{}}, nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.raw.Close())
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

// stmt is a prepared statement with room for its arguments.
type stmt struct {
	raw interface {
		driver.Stmt
		driver.StmtExecContext
		driver.StmtQueryContext
	}
	args []driver.NamedValue
}

// prepared is the statement of a text. The texts are constants of this package and their combinations, so there are few.
func (c *conn) prepared(ctx context.Context, text string) (*stmt, error) {
	if s := c.stmts[text]; s != nil {
		return s, nil
	}
	opened, err := c.raw.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	s := &stmt{}
	raw, ok := opened.(interface {
		driver.Stmt
		driver.StmtExecContext
		driver.StmtQueryContext
	})
	if !ok {
		return nil, errors.Join(fmt.Errorf("driver lacks an interface: %T", opened), opened.Close())
	}
	s.raw = raw
	c.stmts[text] = s
	return s, nil
}

// bind keeps arguments, which are int64 or []byte.
func (s *stmt) bind(args []any) {
	s.args = s.args[:0]
	for i, a := range args {
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
}

// exec runs a statement that answers no rows.
func (c *conn) exec(ctx context.Context, text string, args ...any) (driver.Result, error) {
	s, err := c.prepared(ctx, text)
	if err != nil {
		return nil, err
	}
	s.bind(args)
	return s.raw.ExecContext(ctx, s.args)
}

// ctxEvery is after how many rows a query looks whether its context has ended.
const ctxEvery = 64

// query calls each for every row. The values are int64 or []byte; the slice is used again, what is in it is not.
func (c *conn) query(ctx context.Context, text string, args []any, each func(row []driver.Value) error) (err error) {
	s, err := c.prepared(ctx, text)
	if err != nil {
		return err
	}
	s.bind(args)
	rows, err := s.raw.QueryContext(ctx, s.args)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := rows.Close(); err == nil { // otherwise it says the same once more
			err = closeErr
		}
	}()
	row := make([]driver.Value, len(rows.Columns()))
	for n := 0; ; n++ {
		if n%ctxEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := each(row); err != nil {
			return err
		}
	}
}

// number is the first value of the first row, false where there is no row or it is NULL.
func (c *conn) number(ctx context.Context, text string, args ...any) (n int64, found bool, err error) {
	err = c.query(ctx, text, args, func(row []driver.Value) error {
		n, found = row[0].(int64)
		return nil
	})
	return n, found, err
}

// read runs do with a connection that sees one state of the file.
func (l *Log) read(ctx context.Context, operation string, do func(c *conn) error) error {
	var c *conn
	select {
	case c = <-l.readers:
	case <-l.closed:
		return l.fail(operation, errClosed)
	case <-ctx.Done():
		return l.fail(operation, ctx.Err())
	}
	defer func() { l.readers <- c }()
	if _, err := c.exec(ctx, "BEGIN"); err != nil {
		return l.fail(operation, err)
	}
	err := do(c)
	if _, endErr := c.exec(context.WithoutCancel(ctx), "ROLLBACK"); endErr != nil && err == nil {
		err = endErr
	}
	return l.fail(operation, err)
}

// blob is a text as an argument. It is never nil, which would be NULL.
func blob(s string) []byte { return append(make([]byte, 0, len(s)), s...) }

func textOf(v driver.Value) string {
	b, _ := v.([]byte)
	return string(b)
}

func integer(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}
