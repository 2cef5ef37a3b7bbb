-- The application's tables, on the master alone: Relevo brings them to the standby.
SET ROLE shop;

CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer bigint NOT NULL REFERENCES customers,
    amount numeric(10, 2) NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON orders (customer);

INSERT INTO customers (name) SELECT 'customer ' || n FROM generate_series(1, 1000) AS n;
INSERT INTO orders (customer, amount)
SELECT 1 + n % 1000, (n % 9999) / 100.0 FROM generate_series(1, 50000) AS n;
