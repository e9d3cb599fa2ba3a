package syncapi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/fleet"
)

// maxZstdWindow is what RFC 8878 section 3.1.1.1.2 asks every decoder to take. It costs no memory here: bodies are
// unpacked in one piece, into a buffer of MaxBody.
const maxZstdWindow = 8 << 20

var (
	errBodyTooLarge   = fmt.Errorf("body must have at most %d bytes, before and after decompression", MaxBody)
	errContentCoding  = errors.New("content-encoding must be identity, gzip or zstd")
	errBodyUnreadable = errors.New("body did not arrive")
)

// newZstdDecoder is a decoder for whole bodies, safe for concurrent use. It stops at the capacity of the buffer that it
// is given.
func newZstdDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // cannot be: the options are constants within their bounds
	}
	return d
}

// receive is the body of a request as it was sent, of at most limit bytes. It must arrive within d.
func receive(w http.ResponseWriter, r *http.Request, limit int64, d time.Duration) ([]byte, error) {
	// Not every writer has deadlines; the listener's own then has to do.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d))
	var received bytes.Buffer
	received.Grow(bytes.MinRead + int(min(max(r.ContentLength, 0), limit)))
	if _, err := received.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); err != nil {
		return nil, bodyError(err)
	}
	return received.Bytes(), nil
}

func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return errBodyTooLarge
	}
	return fmt.Errorf("%w: %w", errBodyUnreadable, err)
}

// withBody gives use the unpacked body of a push, which is MaxBody long at most and is use's only until it returns.
func (s *Server) withBody(w http.ResponseWriter, r *http.Request, use func(body []byte) error) error {
	packed, err := receive(w, r, MaxBody, bodyTimeout)
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))) {
	case "", "identity":
		return use(packed)
	case "gzip", "x-gzip":
		body, err := gunzip(packed)
		if err != nil {
			return err
		}
		return use(body)
	case "zstd":
		buffer := s.plain.Get().(*[]byte)
		defer s.plain.Put(buffer)
		body, err := s.zstd.DecodeAll(packed, (*buffer)[:0])
		switch {
		case errors.Is(err, zstd.ErrDecoderSizeExceeded):
			return errBodyTooLarge
		case err != nil:
			return fmt.Errorf("%w: body is not whole zstd: %w", fleet.ErrInvalid, err)
		}
		return use(body)
	}
	return errContentCoding
}

func gunzip(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%w: body is not gzip: %w", fleet.ErrInvalid, err)
	}
	body, err := io.ReadAll(io.LimitReader(z, MaxBody+1))
	switch {
	case len(body) > MaxBody:
		return nil, errBodyTooLarge
	case err != nil:
		return nil, fmt.Errorf("%w: body is not whole gzip: %w", fleet.ErrInvalid, err)
	}
	return body, nil
}
