fn main() {
    pop3svc::bench::store();
}
