package apitest_test

import (
	"testing"

	"net/http"

	"dnsfleet/internal/webapi/apitest"
)

func TestDescriptionLoads(t *testing.T) {
	apitest.Validator(t, http.NotFoundHandler())
}
