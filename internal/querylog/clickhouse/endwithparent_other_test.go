//go:build !linux

package clickhouse_test

import "syscall"

func endWithParent() *syscall.SysProcAttr { return nil }
