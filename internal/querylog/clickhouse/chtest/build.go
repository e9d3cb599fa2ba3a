package chtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// build builds the engine's program, once in a process.
func build(ctx context.Context) (string, error) {
	built.Do(func() { built.path, built.err = buildProgram(context.WithoutCancel(ctx)) })
	return built.path, built.err
}

var built struct {
	sync.Once
	path string
	err  error
}

// buildProgram keeps the program in .cache, where the go command sees whether it is still good. Test binaries of several
// packages may want it at once.
func buildProgram(ctx context.Context) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".cache", "chdb")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	program := filepath.Join(dir, "engine")
	command := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	command.Dir = filepath.Join(root, "internal", "querylog", "clickhouse", "chtest", "engine")
	command.Env = append(command.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	var said bytes.Buffer
	command.Stderr = &said
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("build the test engine in %s: %w\n%s", command.Dir, err, &said)
	}
	return program, nil
}

// findLibrary is the path of libchdb.so.
func findLibrary() (string, error) {
	if path := os.Getenv("CHDB_LIB_PATH"); path != "" { //nolint:forbidigo // tests have no cmd that reads it for them
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("the ClickHouse engine of CHDB_LIB_PATH: %w", err)
		}
		return path, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	path := root + "/.cache/chdb/package/libchdb.so"
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no ClickHouse engine for the tests (%w): run %s/scripts/deps.sh clickhouse-engine, or set CHDB_LIB_PATH to a libchdb.so", err, root)
	}
	return path, nil
}

// moduleRoot is the folder of the program's go.mod: tests run in the folder of their package, somewhere below it.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module dnsfleet\n")) {
			return dir, nil
		}
	}
	return "", errors.New("no go.mod of dnsfleet above the working directory")
}
