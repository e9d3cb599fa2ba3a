// Package httpjson reads and writes JSON over HTTP the one way that all of dnsfleet's APIs share: one error shape, one
// table from error to status, bodies bounded, answers encoded before the header is written.
package httpjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"dnsfleet/internal/fleet"
)

// Write answers with v as JSON. A value that cannot be encoded becomes a 500.
func Write(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		Error(w, http.StatusInternalServerError, "answer cannot be encoded")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if w.Header().Get("Cache-Control") == "" {
		w.Header().Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	w.Write(body.Bytes()) // an error means that the client is gone: nobody is left to tell
}

// Error answers with {"error": sentence}.
func Error(w http.ResponseWriter, status int, sentence string) {
	Write(w, status, struct {
		Error string `json:"error"`
	}{sentence})
}

// Fail answers with the status that the error stands for, and its text. What is none of fleet's conditions is a 500
// whose text stays inside; the caller logs it.
func Fail(w http.ResponseWriter, err error) {
	status := Status(err)
	switch status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "5")
		Error(w, status, fleet.ErrUnavailable.Error())
	case http.StatusInternalServerError:
		Error(w, status, "internal error")
	default:
		Error(w, status, Sentence(err))
	}
}

// Sentence is the text of an error as a client should read it: without the word that only classifies it.
func Sentence(err error) string {
	return strings.TrimPrefix(err.Error(), fleet.ErrInvalid.Error()+": ")
}

// Status is the HTTP status of an error, 500 for one that is none of fleet's conditions.
func Status(err error) int {
	var tooLarge *http.MaxBytesError
	for _, row := range []struct {
		condition error
		status    int
	}{
		{fleet.ErrNotFound, http.StatusNotFound},
		{fleet.ErrInvalid, http.StatusBadRequest},
		{fleet.ErrFutureReport, http.StatusBadRequest},
		{fleet.ErrConflict, http.StatusPreconditionFailed},
		{fleet.ErrUnknownToken, http.StatusUnauthorized},
		{fleet.ErrRevokedToken, http.StatusUnauthorized},
		{fleet.ErrNotYours, http.StatusForbidden},
		{fleet.ErrForgotten, http.StatusGone},
		{fleet.ErrUnavailable, http.StatusServiceUnavailable},
	} {
		if errors.Is(err, row.condition) {
			return row.status
		}
	}
	if errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusInternalServerError
}

// Read decodes a body of at most limit bytes into v and refuses fields that v does not have. Its errors have a Status.
func Read(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	return read(http.MaxBytesReader(w, r.Body, limit), v, true)
}

// ReadTolerant decodes body into v and ignores fields that v does not have, because other versions must work. The
// caller has bounded body.
func ReadTolerant(body io.Reader, v any) error { return read(body, v, false) }

func read(body io.Reader, v any, strict bool) error {
	text, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if !utf8.Valid(text) {
		return fmt.Errorf("%w: body is not UTF-8", fleet.ErrInvalid)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if strict {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, fleet.ErrInvalid) {
			return err
		}
		return fmt.Errorf("%w: body is not the JSON expected here: %s", fleet.ErrInvalid, strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: body holds more than one JSON value", fleet.ErrInvalid)
	}
	return nil
}
