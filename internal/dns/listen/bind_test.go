package listen_test

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"dnsfleet/internal/dns/listen"
)

func TestBindTakesAllAddressesOrNone(t *testing.T) {
	leavesNothing(t)
	taken := bind(t, listen.Options{UDPAndTCP: []string{"127.0.0.1:0"}}).Addrs()[0]
	onlyUDP, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer onlyUDP.Close()
	free := bind(t, listen.Options{UDPAndTCP: []string{"127.0.0.1:0"}})
	wanted := free.Addrs()[0]
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		o    listen.Options
		want string
	}{
		{"another server has the port", listen.Options{UDPAndTCP: []string{wanted, taken}}, "listen for dns on " + taken},
		{"somebody has the port for UDP", listen.Options{UDPAndTCP: []string{wanted, onlyUDP.LocalAddr().String()}}, "another program holds this port"},
		{"somebody has the port of DoT", listen.Options{UDPAndTCP: []string{wanted}, DoT: []string{taken}}, "listen for dns over tls on " + taken},
		{"somebody has the port of DoH", listen.Options{UDPAndTCP: []string{wanted}, DoH: []string{taken}}, "listen for dns over https on " + taken},
		{"the address is none of ours", listen.Options{UDPAndTCP: []string{wanted, "203.0.113.1:0"}}, "203.0.113.1:0"},
		{"the address has no port", listen.Options{UDPAndTCP: []string{wanted, "127.0.0.1"}}, "missing port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Certificate = newAuthority(t).certificate
			s, err := listen.Bind(t.Context(), c.o)
			if err == nil {
				_ = s.Close()
				t.Fatal("got no error, want one")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want it to contain %q", err, c.want)
			}
			bound, err := listen.Bind(t.Context(), listen.Options{UDPAndTCP: []string{wanted}})
			if err != nil {
				t.Fatalf("the other address afterwards: %v", err)
			}
			_ = bound.Close()
		})
	}
}

func TestEncryptedListenersNeedACertificate(t *testing.T) {
	for name, o := range map[string]listen.Options{"DoT": {DoT: []string{"127.0.0.1:0"}}, "DoH": {DoH: []string{"127.0.0.1:0"}}} {
		if s, err := listen.Bind(t.Context(), o); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: got %v, %v; want an error about the certificate", name, s, err)
		}
	}
}

func TestAddressesInUseAreTold(t *testing.T) {
	taken := bind(t, listen.Options{UDPAndTCP: []string{"127.0.0.1:0"}}).Addrs()[0]
	_, err := listen.Bind(t.Context(), listen.Options{UDPAndTCP: []string{taken}})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
}

func TestServeServesOnce(t *testing.T) {
	s := serve(t, listen.Options{}, handle(echo))
	wantAnswer(t, dial(t, "udp", s.addr()), 1)
	if err := s.Serve(t.Context(), handle(echo)); err == nil {
		t.Error("while it serves: got no error, want one")
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), handle(echo)); err == nil {
		t.Error("afterwards: got no error, want one")
	}
	closed := bind(t, listen.Options{})
	for range 2 {
		if err := closed.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := closed.Serve(t.Context(), handle(echo)); err == nil {
		t.Error("after Close: got no error, want one")
	}
}

func TestCloseEndsServe(t *testing.T) {
	leavesNothing(t)
	s := bind(t, listen.Options{})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(t.Context(), handle(echo)) }()
	wantAnswer(t, dial(t, "udp", s.Addrs()[0]), 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}
