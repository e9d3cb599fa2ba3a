package chtest

import (
	"fmt"
	"strings"
)

// Database makes an empty database beside the others and returns its name and its URLs, over HTTP and over the native
// protocol.
func (s *Server) Database() (name, overHTTP, native string) {
	s.t.Helper()
	s.databases++
	name = fmt.Sprintf("test%d", s.databases)
	s.Exec("CREATE DATABASE " + name)
	return name, strings.TrimSuffix(s.DSN(), "default") + name, strings.TrimSuffix(s.NativeDSN(), "default") + name
}

// Clear drops the tables of the default database and ends what Delay and Account asked for.
func (s *Server) Clear() {
	s.t.Helper()
	s.Delay(0)
	s.Account("", "")
	for table := range strings.FieldsSeq(s.Value("SELECT arrayStringConcat(groupArray(name), ' ') FROM system.tables WHERE database = 'default'")) {
		s.Exec("DROP TABLE IF EXISTS " + table + " SYNC")
	}
}
