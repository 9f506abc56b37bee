// Go's net/http with redigo.
package main

import (
	"fmt"
	"html"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gomodule/redigo/redis"
)

func main() {
	name, hostname := os.Getenv("NAME"), "unknown"
	if host, err := os.Hostname(); err == nil {
		hostname = host
	}
	start := fmt.Sprintf("<h3>Hello %s!</h3><b>Hostname:</b> %s<br/><b>Visits:</b> ",
		html.EscapeString(name), html.EscapeString(hostname))

	limit := redis.DialConnectTimeout(2 * time.Second)
	read := redis.DialReadTimeout(2 * time.Second)
	write := redis.DialWriteTimeout(2 * time.Second)
	pool := &redis.Pool{
		MaxIdle:   64,
		MaxActive: 64,
		Wait:      true,
		Dial: func() (redis.Conn, error) {
			return redis.DialURL(os.Getenv("REDIS_URL"), limit, read, write)
		},
	}

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		connection := pool.Get()
		visits, err := redis.Int64(connection.Do("INCR", "counter"))
		connection.Close()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err != nil {
			fmt.Fprint(w, start, "<i>cannot connect to Redis, counter disabled</i>")
			return
		}
		fmt.Fprintf(w, "%s%d", start, visits)
	})
	address, certificate := "127.0.0.1:"+os.Getenv("PORT"), os.Getenv("TLS_CERT")
	if certificate != "" {
		log.Fatal(http.ListenAndServeTLS(address, certificate, os.Getenv("TLS_KEY"), nil))
	}
	log.Fatal(http.ListenAndServe(address, nil))
}
