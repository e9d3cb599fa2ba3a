package chtest

import (
	"fmt"
	"strings"
)

// Database makes an empty database beside the others and returns its URLs, over HTTP and over the native protocol.
func (s *Server) Database() (overHTTP, native string) {
	s.t.Helper()
	s.databases++
	name := fmt.Sprintf("test%d", s.databases)
	s.Exec("CREATE DATABASE " + name)
	return strings.TrimSuffix(s.DSN(), "default") + name, strings.TrimSuffix(s.NativeDSN(), "default") + name
}
