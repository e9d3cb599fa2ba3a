// Command engine answers ClickHouse's HTTP protocol on a loopback address from an embedded ClickHouse (libchdb). It
// understands as much of the protocol as clickhouse-go speaks, and fails on demand. Only tests start it.
//
// It is a module of its own, so that the program's module does not depend on the engine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	chdb "github.com/chdb-io/chdb-go/chdb-purego"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:0", "address of the HTTP listener")
	dir := flag.String("dir", "", "folder of the data")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// Opened once and kept: the engine ends with its last connection.
	keep, err := chdb.NewConnectionFromConnString(*dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", *dir, err)
	}
	defer keep.Close()
	scratch, err := os.MkdirTemp(*dir, "inserts-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	s := &server{dir: *dir, scratch: scratch}
	web := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	// The parent waits for this line.
	fmt.Println("listening on", listener.Addr())
	go func() {
		// Standard input ends with the parent: an engine never outlives its test.
		_, _ = os.Stdin.Read(make([]byte, 1))
		stop()
	}()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	if err := web.Close(); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
