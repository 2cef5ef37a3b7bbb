-- One transaction of the sample load (pgbench --file).
\set customer random(1, 1000)
\set amount random(1, 100000)
BEGIN;
INSERT INTO orders (customer, amount) VALUES (:customer, :amount / 100.0);
UPDATE customers SET name = 'customer ' || :customer || ' of ' || :amount WHERE id = :customer;
COMMIT;
