package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
)

// native answers ClickHouse's native protocol on a TCP listener.
type native struct{ *engine }

// serve takes connections until the listener is closed.
func (n native) serve(ctx context.Context, listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			c := &peer{native: n, conn: conn, reader: proto.NewReader(bufio.NewReader(conn)), packer: compress.NewWriter(0, compress.LZ4)}
			_ = c.talk() // the client sees that the connection ends
		}()
	}
}

// peer is a client's connection.
type peer struct {
	native
	conn     net.Conn
	reader   *proto.Reader
	packer   *compress.Writer
	revision int
	database string
}

func (p *peer) talk() error {
	if err := p.greet(); err != nil {
		return err
	}
	for {
		code, err := p.reader.UVarInt()
		if err != nil {
			return err
		}
		switch proto.ClientCode(code) {
		case proto.ClientCodePing:
			if err := p.send(func(b *proto.Buffer) { proto.ServerCodePong.Encode(b) }); err != nil {
				return err
			}
		case proto.ClientCodeQuery:
			if err := p.query(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("packet %d is not known here", code)
		}
	}
}

// greet exchanges hellos.
func (p *peer) greet() error {
	if code, err := p.reader.UVarInt(); err != nil || proto.ClientCode(code) != proto.ClientCodeHello {
		return fmt.Errorf("packet %d instead of a hello: %w", code, err)
	}
	var hello proto.ClientHello
	if err := hello.Decode(p.reader); err != nil {
		return err
	}
	if err := p.admit(hello.User, hello.Password); err != nil {
		return errors.Join(err, p.fail(err))
	}
	p.database = hello.Database
	p.revision = min(hello.ProtocolVersion, proto.Version)
	answer := proto.ServerHello{Name: "ClickHouse", Major: 26, Minor: 7, Revision: p.revision, Timezone: "UTC", DisplayName: "chtest"}
	if err := p.send(func(b *proto.Buffer) { answer.EncodeAware(b, p.revision) }); err != nil {
		return err
	}
	if proto.FeatureAddendum.In(p.revision) {
		_, err := p.reader.Str() // the quota key
		return err
	}
	return nil
}

// query takes one query and answers it. An exception is an answer.
func (p *peer) query() error {
	var q proto.Query
	if err := q.DecodeAware(p.reader, p.revision); err != nil {
		return err
	}
	packed := q.Compression == proto.CompressionEnabled
	if _, rows, err := p.data(packed); err != nil || rows > 0 { // the end of external tables, which nobody sends
		return fmt.Errorf("%d rows of an external table: %w", rows, err)
	}
	r := request{database: p.database, settings: map[string]string{}, parameters: map[string]string{}, sql: q.Body, format: "Native"}
	for _, s := range q.Settings {
		r.settings[s.Key] = s.Value
	}
	for _, s := range q.Parameters {
		r.parameters[s.Key] = s.Value // quoted already
	}
	var err error
	if target := insertInto.FindStringSubmatch(q.Body); target != nil {
		err = p.insert(r, packed, target[1], target[2])
	} else {
		err = p.answer(r, packed)
	}
	if e := (exception{}); errors.As(err, &e) {
		return p.fail(err)
	}
	return err
}

var insertInto = regexp.MustCompile(`(?is)^\s*INSERT\s+INTO\s+(\S+)\s*\(([^)]*)\)\s*(?:VALUES|FORMAT\s+Native)?\s*$`)

// insert tells the columns' types, takes blocks until an empty one, and stores them.
func (p *peer) insert(r request, packed bool, table, columns string) error {
	names := strings.Split(columns, ",")
	for i, name := range names {
		names[i] = strings.Trim(strings.TrimSpace(name), "`\"")
	}
	header, err := p.header(r, table, names)
	if err != nil {
		return toException(err)
	}
	if err := p.sendBlock(packed, header.encode); err != nil {
		return err
	}
	var blocks []byte
	for {
		code, err := p.reader.UVarInt()
		if err != nil {
			return err
		}
		if proto.ClientCode(code) != proto.ClientCodeData {
			return fmt.Errorf("packet %d instead of data", code)
		}
		block, rows, err := p.blockOf(packed)
		if err != nil {
			return err
		}
		if rows == 0 {
			break
		}
		blocks = append(blocks, block...)
	}
	if len(blocks) > 0 {
		if err := p.engine.insert(r, blocks); errors.Is(err, errNoAnswer) {
			return err
		} else if err != nil {
			return toException(err)
		}
	}
	return p.send(func(b *proto.Buffer) { proto.ServerCodeEndOfStream.Encode(b) })
}

// answer runs a statement and sends its blocks.
func (p *peer) answer(r request, packed bool) error {
	answer, rowsRead, err := p.run(r)
	if err != nil {
		return toException(err)
	}
	if len(answer) == 0 && selecting.MatchString(r.sql) {
		header, err := p.header(r, "("+strings.TrimRight(r.sql, "; \n\t")+")", nil)
		if err != nil {
			return toException(err)
		}
		if err := p.sendBlock(packed, header.encode); err != nil {
			return err
		}
	}
	err = eachBlock(answer, func(block proto.Block, columns []proto.InputColumn) error {
		return p.sendBlock(packed, func(b *proto.Buffer) error { return block.EncodeBlock(b, p.revision, columns) })
	})
	if err != nil {
		return err
	}
	return p.send(func(b *proto.Buffer) {
		proto.ServerCodeProgress.Encode(b)
		proto.Progress{Rows: rowsRead}.EncodeAware(b, p.revision)
		proto.ServerCodeEndOfStream.Encode(b)
	})
}

// header is an empty block, which says what columns others have.
type header struct {
	names, types []string
	revision     int
}

// header asks for the types of a table's or subquery's columns, nil for all.
func (p *peer) header(r request, table string, columns []string) (header, error) {
	r.sql, r.format = "DESCRIBE TABLE "+table, "TSVRaw"
	answer, _, err := p.run(r)
	if err != nil {
		return header{}, err
	}
	h := header{revision: p.revision}
	types := map[string]string{}
	for line := range strings.Lines(string(answer)) {
		if fields := strings.Split(line, "\t"); len(fields) > 1 {
			types[fields[0]] = fields[1]
			h.names = append(h.names, fields[0])
		}
	}
	if columns != nil {
		h.names = columns
	}
	for _, name := range h.names {
		if types[name] == "" {
			return header{}, newException(16, "NO_SUCH_COLUMN_IN_TABLE", "No such column %s in table %s", name, table)
		}
		h.types = append(h.types, types[name])
	}
	return h, nil
}

func (h header) encode(b *proto.Buffer) error {
	if proto.FeatureBlockInfo.In(h.revision) {
		proto.BlockInfo{BucketNum: -1}.Encode(b)
	}
	b.PutInt(len(h.names))
	b.PutInt(0)
	for i, name := range h.names {
		b.PutString(name)
		b.PutString(h.types[i])
		if proto.FeatureCustomSerialization.In(h.revision) {
			b.PutBool(false)
		}
	}
	return nil
}

// data reads a whole data packet.
func (p *peer) data(packed bool) (block []byte, rows int, err error) {
	if code, err := p.reader.UVarInt(); err != nil || proto.ClientCode(code) != proto.ClientCodeData {
		return nil, 0, fmt.Errorf("packet %d instead of data: %w", code, err)
	}
	return p.blockOf(packed)
}

// blockOf reads the block of a data packet and encodes it as Native of revision 0.
func (p *peer) blockOf(packed bool) (again []byte, rows int, err error) {
	var head proto.ClientData
	if err := head.DecodeAware(p.reader, p.revision); err != nil {
		return nil, 0, err
	}
	if packed {
		p.reader.EnableCompression()
		defer p.reader.DisableCompression()
	}
	var block proto.Block
	var columns proto.Results
	if err := block.DecodeBlock(p.reader, p.revision, columns.Auto()); err != nil {
		return nil, 0, err
	}
	input, err := toInput(columns)
	if err != nil || block.Rows == 0 {
		return nil, 0, err
	}
	var b proto.Buffer
	err = block.EncodeRawBlock(&b, 0, slices.Clip(input))
	return b.Buf, block.Rows, err
}

// sendBlock sends a data packet.
func (p *peer) sendBlock(packed bool, encode func(*proto.Buffer) error) error {
	var block proto.Buffer
	if err := encode(&block); err != nil {
		return err
	}
	if packed {
		if err := p.packer.Compress(block.Buf); err != nil {
			return err
		}
		block.Buf = p.packer.Data
	}
	return p.send(func(b *proto.Buffer) {
		proto.ServerCodeData.Encode(b)
		b.PutString("")
		b.Buf = append(b.Buf, block.Buf...)
	})
}

func (p *peer) fail(err error) error {
	e := toException(err)
	return p.send(func(b *proto.Buffer) {
		proto.ServerCodeException.Encode(b)
		told := proto.Exception{Code: proto.Error(e.code), Name: "DB::Exception", Message: e.text}
		told.EncodeAware(b, p.revision)
	})
}

func (p *peer) send(encode func(*proto.Buffer)) error {
	var b proto.Buffer
	encode(&b)
	_, err := io.Copy(p.conn, bytes.NewReader(b.Buf))
	return err
}
