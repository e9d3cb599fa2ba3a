package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ClickHouse/ch-go/proto"
)

// eachBlock decodes the blocks of Native of revision 0, which the library writes, and hands them on to be encoded again.
func eachBlock(native []byte, each func(proto.Block, []proto.InputColumn) error) error {
	reader := proto.NewReader(bytes.NewReader(native))
	for {
		var block proto.Block
		var columns proto.Results
		err := block.DecodeRawBlock(reader, 0, columns.Auto())
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("decode answer: %w", err)
		}
		input, err := toInput(columns)
		if err == nil {
			err = each(block, input)
		}
		if err != nil {
			return err
		}
	}
}

// toInput makes columns that were decoded ready to be encoded.
func toInput(columns proto.Results) (input []proto.InputColumn, err error) {
	for _, c := range columns {
		data, ok := c.Data.(proto.ColInput)
		if !ok {
			return nil, fmt.Errorf("column %s of type %s cannot be sent again", c.Name, c.Data.Type())
		}
		input = append(input, proto.InputColumn{Name: c.Name, Data: data})
	}
	return input, nil
}
