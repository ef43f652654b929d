package gotests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// pem reads one of the certificates of the server that speaks TLS only, and only with whom shows it one.
func pem(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(os.Getenv("SERACDB_TLS_DIR"), name))
	must(t, err)
	return string(text)
}

// answer logs in at the server that speaks TLS and asks it something.
func answer(t *testing.T, password string, options map[string]string) (string, error) {
	t.Helper()
	all := map[string]string{
		adbc.OptionKeyURI:      os.Getenv("SERACDB_TLS_URI"),
		adbc.OptionKeyUsername: os.Getenv("SERACDB_USER"),
		adbc.OptionKeyPassword: password,
	}
	for key, value := range options {
		all[key] = value
	}
	database, err := flightsql.NewDriver(memory.DefaultAllocator).NewDatabase(all)
	if err != nil {
		return "", err
	}
	defer database.Close()
	connection, err := database.Open(ctx)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	s, err := connection.NewStatement()
	if err != nil {
		return "", err
	}
	defer s.Close()
	must(t, s.SetSqlQuery("SELECT 6 * 7 AS answer"))
	reader, _, err := s.ExecuteQuery(ctx)
	if err != nil {
		return "", err
	}
	return text(t, reader), nil
}

func TestTLS(t *testing.T) {
	if !strings.HasPrefix(os.Getenv("SERACDB_TLS_URI"), "grpc+tls://") {
		t.Fatal("SERACDB_TLS_URI is not set: run beside scripts/testserver.py")
	}
	trusting := map[string]string{flightsql.OptionSSLRootCerts: pem(t, "ca.pem")}
	shown := map[string]string{
		flightsql.OptionSSLRootCerts:   pem(t, "ca.pem"),
		flightsql.OptionMTLSCertChain:  pem(t, "client.pem"),
		flightsql.OptionMTLSPrivateKey: pem(t, "client.key"),
	}
	password := os.Getenv("SERACDB_PASSWORD")
	got, err := answer(t, password, shown)
	must(t, err)
	if got != "42" {
		t.Fatalf("got %q", got)
	}
	if _, err := answer(t, "wrong", shown); err == nil || !strings.Contains(err.Error(), "password") {
		t.Fatalf("with a wrong password: %v", err)
	}
	plain := map[string]string{adbc.OptionKeyURI: strings.Replace(os.Getenv("SERACDB_TLS_URI"), "grpc+tls", "grpc", 1)}
	for name, options := range map[string]map[string]string{"untrusted": {}, "without a certificate": trusting, "plain": plain} {
		began := time.Now()
		if _, err := answer(t, password, options); err == nil || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
	}
}
