package clickhouse_test

import "syscall"

// endWithParent lets the kernel end a server whose test was killed and could not clean up.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
