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

// buildProgram builds beside the place and renames, since test binaries of several packages may do so at once.
func buildProgram(ctx context.Context) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, ".cache", "chdb")
	if err := os.MkdirAll(bin, 0o750); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(bin, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	fresh := filepath.Join(work, "engine")
	command := exec.CommandContext(ctx, "go", "build", "-o", fresh, ".")
	command.Dir = filepath.Join(root, "internal", "querylog", "clickhouse", "chtest", "engine")
	command.Env = append(command.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	var said bytes.Buffer
	command.Stderr = &said
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("build the test engine in %s: %w\n%s", command.Dir, err, &said)
	}
	path := filepath.Join(bin, "engine")
	return path, os.Rename(fresh, path)
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
