package chtest

import (
	"fmt"
	"strings"
)

// Database makes an empty database beside the others and returns its URL.
func (s *Server) Database() string {
	s.t.Helper()
	s.databases++
	name := fmt.Sprintf("test%d", s.databases)
	s.Exec("CREATE DATABASE " + name)
	return strings.TrimSuffix(s.DSN(), "default") + name
}
