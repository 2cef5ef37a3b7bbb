--
-- PostgreSQL database dump
--

\restrict W6ZQeZOQQjcFg1Ao73dZvIqxEVj2Z6MmZaB2fAcYdtHB5JX88C0jQMYHQvQQwfA

-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

--
-- Name: MixedCase MixedCase_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public."MixedCase"
    ADD CONSTRAINT "MixedCase_pkey" PRIMARY KEY ("Id");


--
-- Name: a_name_of_63_bytes_which_is_as_long_as_names_can_be_in_postgres a_name_of_63_bytes_which_is_as_long_as_names_can_be_in_pos_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.a_name_of_63_bytes_which_is_as_long_as_names_can_be_in_postgres
    ADD CONSTRAINT a_name_of_63_bytes_which_is_as_long_as_names_can_be_in_pos_pkey PRIMARY KEY (a_column_of_63_bytes_which_is_as_long_as_names_can_be_in_postgr);


--
-- Name: animals animals_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.animals
    ADD CONSTRAINT animals_pkey PRIMARY KEY (id);


--
-- Name: audit audit_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);


--
-- Name: birds birds_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.birds
    ADD CONSTRAINT birds_pkey PRIMARY KEY (id);


--
-- Name: composite_key composite_key_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.composite_key
    ADD CONSTRAINT composite_key_pkey PRIMARY KEY (c, a, b);


--
-- Name: customers customers_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.customers
    ADD CONSTRAINT customers_pkey PRIMARY KEY (id);


--
-- Name: ddl_log ddl_log_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.ddl_log
    ADD CONSTRAINT ddl_log_pkey PRIMARY KEY (id);


--
-- Name: dropped_columns dropped_columns_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.dropped_columns
    ADD CONSTRAINT dropped_columns_pkey PRIMARY KEY (id);


--
-- Name: generated generated_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.generated
    ADD CONSTRAINT generated_pkey PRIMARY KEY (id);


--
-- Name: hashed hashed_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.hashed
    ADD CONSTRAINT hashed_pkey PRIMARY KEY (id);


--
-- Name: hashed_0 hashed_0_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.hashed_0
    ADD CONSTRAINT hashed_0_pkey PRIMARY KEY (id);


--
-- Name: hashed_1 hashed_1_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.hashed_1
    ADD CONSTRAINT hashed_1_pkey PRIMARY KEY (id);


--
-- Name: hashed_2 hashed_2_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.hashed_2
    ADD CONSTRAINT hashed_2_pkey PRIMARY KEY (id);


--
-- Name: identity_index identity_index_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.identity_index
    ADD CONSTRAINT identity_index_pkey PRIMARY KEY (a);


--
-- Name: insert_only_deferrable_key insert_only_deferrable_key_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.insert_only_deferrable_key
    ADD CONSTRAINT insert_only_deferrable_key_pkey PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED;


--
-- Name: insert_only_nothing insert_only_nothing_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.insert_only_nothing
    ADD CONSTRAINT insert_only_nothing_pkey PRIMARY KEY (id);


--
-- Name: many_columns many_columns_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.many_columns
    ADD CONSTRAINT many_columns_pkey PRIMARY KEY (id);


--
-- Name: measurements measurements_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.measurements
    ADD CONSTRAINT measurements_pkey PRIMARY KEY (id, day, region);


--
-- Name: measurements_2025 measurements_2025_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.measurements_2025
    ADD CONSTRAINT measurements_2025_pkey PRIMARY KEY (id, day, region);


--
-- Name: measurements_2026 measurements_2026_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.measurements_2026
    ADD CONSTRAINT measurements_2026_pkey PRIMARY KEY (id, day, region);


--
-- Name: measurements_2026_rest measurements_2026_rest_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.measurements_2026_rest
    ADD CONSTRAINT measurements_2026_rest_pkey PRIMARY KEY (id, day, region);


--
-- Name: measurements_default measurements_default_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.measurements_default
    ADD CONSTRAINT measurements_default_pkey PRIMARY KEY (id, day, region);


--
-- Name: unique_values no_overlap; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.unique_values
    ADD CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&) DEFERRABLE;


--
-- Name: no_partitions no_partitions_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.no_partitions
    ADD CONSTRAINT no_partitions_pkey PRIMARY KEY (id);


--
-- Name: order_lines order_lines_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.order_lines
    ADD CONSTRAINT order_lines_pkey PRIMARY KEY ("order", line);


--
-- Name: orders orders_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (id);

ALTER TABLE public.orders CLUSTER ON orders_pkey;


--
-- Name: owned_by_reader owned_by_reader_pkey; Type: CONSTRAINT; Schema: public; Owner: relevo awkward; reader
--

ALTER TABLE ONLY public.owned_by_reader
    ADD CONSTRAINT owned_by_reader_pkey PRIMARY KEY (id);


--
-- Name: parrots parrots_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.parrots
    ADD CONSTRAINT parrots_pkey PRIMARY KEY (id);


--
-- Name: rule_log rule_log_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.rule_log
    ADD CONSTRAINT rule_log_pkey PRIMARY KEY (id);


--
-- Name: toast toast_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.toast
    ADD CONSTRAINT toast_pkey PRIMARY KEY (id);


--
-- Name: tree tree_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.tree
    ADD CONSTRAINT tree_pkey PRIMARY KEY (id);


--
-- Name: unique_values unique_values_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.unique_values
    ADD CONSTRAINT unique_values_pkey PRIMARY KEY (id);


--
-- Name: unique_values unique_values_rank_key; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.unique_values
    ADD CONSTRAINT unique_values_rank_key UNIQUE (rank) DEFERRABLE;


--
-- Name: unique_values unique_values_slug_key; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.unique_values
    ADD CONSTRAINT unique_values_slug_key UNIQUE (slug);


--
-- Name: unique_values unique_values_swap_key; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.unique_values
    ADD CONSTRAINT unique_values_swap_key UNIQUE (swap);


--
-- Name: unlogged_cache unlogged_cache_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.unlogged_cache
    ADD CONSTRAINT unlogged_cache_pkey PRIMARY KEY (id);


--
-- Name: uses_sequence uses_sequence_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.uses_sequence
    ADD CONSTRAINT uses_sequence_pkey PRIMARY KEY (id);


--
-- Name: a " b.c\d $1 %s 'e'; -- a " b.c\d $1 %s 'e'; --_pkey; Type: CONSTRAINT; Schema: select; Owner: postgres
--

ALTER TABLE ONLY "select"."a "" b.c\d $1 %s 'e'; --"
    ADD CONSTRAINT "a "" b.c\d $1 %s 'e'; --_pkey" PRIMARY KEY (" ");


--
-- Name: table table_pkey; Type: CONSTRAINT; Schema: select; Owner: postgres
--

ALTER TABLE ONLY "select"."table"
    ADD CONSTRAINT table_pkey PRIMARY KEY ("user", "order");


--
-- Name: by_float by_float_pkey; Type: CONSTRAINT; Schema: types; Owner: postgres
--

ALTER TABLE ONLY types.by_float
    ADD CONSTRAINT by_float_pkey PRIMARY KEY (key);


--
-- Name: by_many by_many_pkey; Type: CONSTRAINT; Schema: types; Owner: postgres
--

ALTER TABLE ONLY types.by_many
    ADD CONSTRAINT by_many_pkey PRIMARY KEY (d, t, u, b, e, r, i, l);


--
-- Name: by_numeric by_numeric_pkey; Type: CONSTRAINT; Schema: types; Owner: postgres
--

ALTER TABLE ONLY types.by_numeric
    ADD CONSTRAINT by_numeric_pkey PRIMARY KEY (key);


--
-- Name: compounds compounds_pkey; Type: CONSTRAINT; Schema: types; Owner: postgres
--

ALTER TABLE ONLY types.compounds
    ADD CONSTRAINT compounds_pkey PRIMARY KEY (id);


--
-- Name: extended extended_pkey; Type: CONSTRAINT; Schema: types; Owner: postgres
--

ALTER TABLE ONLY types.extended
    ADD CONSTRAINT extended_pkey PRIMARY KEY (email);


--
-- Name: labels labels_pkey; Type: CONSTRAINT; Schema: types; Owner: postgres
--

ALTER TABLE ONLY types.labels
    ADD CONSTRAINT labels_pkey PRIMARY KEY (code);


--
-- Name: markup markup_pkey; Type: CONSTRAINT; Schema: types; Owner: postgres
--

ALTER TABLE ONLY types.markup
    ADD CONSTRAINT markup_pkey PRIMARY KEY (id);


--
-- Name: scalars scalars_pkey; Type: CONSTRAINT; Schema: types; Owner: postgres
--

ALTER TABLE ONLY types.scalars
    ADD CONSTRAINT scalars_pkey PRIMARY KEY (id);


--
-- Name: y.z y.z_pkey; Type: CONSTRAINT; Schema: x; Owner: postgres
--

ALTER TABLE ONLY x."y.z"
    ADD CONSTRAINT "y.z_pkey" PRIMARY KEY (id);


--
-- Name: z z_pkey; Type: CONSTRAINT; Schema: x.y; Owner: postgres
--

ALTER TABLE ONLY "x.y".z
    ADD CONSTRAINT z_pkey PRIMARY KEY (id);


--
-- Name: Täble 名 🐘 Täble 名 🐘_pkey; Type: CONSTRAINT; Schema: Ünïcödé Schéma 名; Owner: postgres
--

ALTER TABLE ONLY "Ünïcödé Schéma 名"."Täble 名 🐘"
    ADD CONSTRAINT "Täble 名 🐘_pkey" PRIMARY KEY ("Ключ");


--
-- Name: measurements_2026_north measurements_2026_north_pkey; Type: CONSTRAINT; Schema: Ünïcödé Schéma 名; Owner: postgres
--

ALTER TABLE ONLY "Ünïcödé Schéma 名".measurements_2026_north
    ADD CONSTRAINT measurements_2026_north_pkey PRIMARY KEY (id, day, region);


--
-- Name: identity_index_code; Type: INDEX; Schema: public; Owner: postgres
--

CREATE UNIQUE INDEX identity_index_code ON public.identity_index USING btree (region, code);

ALTER TABLE ONLY public.identity_index REPLICA IDENTITY USING INDEX identity_index_code;


--
-- Name: measurements_value; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX measurements_value ON ONLY public.measurements USING btree (value DESC NULLS LAST) INCLUDE (note);


--
-- Name: measurements_2025_value_note_idx; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX measurements_2025_value_note_idx ON public.measurements_2025 USING btree (value DESC NULLS LAST) INCLUDE (note);


--
-- Name: measurements_2026_value_note_idx; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX measurements_2026_value_note_idx ON ONLY public.measurements_2026 USING btree (value DESC NULLS LAST) INCLUDE (note);


--
-- Name: measurements_2026_rest_value_note_idx; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX measurements_2026_rest_value_note_idx ON public.measurements_2026_rest USING btree (value DESC NULLS LAST) INCLUDE (note);


--
-- Name: measurements_default_value_note_idx; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX measurements_default_value_note_idx ON public.measurements_default USING btree (value DESC NULLS LAST) INCLUDE (note);


--
-- Name: orders_hash; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX orders_hash ON public.orders USING hash (placed_at);


--
-- Name: orders_state; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX orders_state ON public.orders USING btree (state varchar_pattern_ops) WHERE (state <> ';'::text);


--
-- Name: unique_values_folded; Type: INDEX; Schema: public; Owner: postgres
--

CREATE UNIQUE INDEX unique_values_folded ON public.unique_values USING btree (lower(slug), ((swap + 1)));


--
-- Name: unique_values_partial; Type: INDEX; Schema: public; Owner: postgres
--

CREATE UNIQUE INDEX unique_values_partial ON public.unique_values USING btree (rank) WHERE active;


--
-- Name: z_below_state; Type: INDEX; Schema: public; Owner: postgres
--

CREATE UNIQUE INDEX z_below_state ON public.z_below USING btree (state);


--
-- Name: scalars_words; Type: INDEX; Schema: types; Owner: postgres
--

CREATE INDEX scalars_words ON types.scalars USING gin (c_tsvector);


--
-- Name: measurements_2026_north_value_note_idx; Type: INDEX; Schema: Ünïcödé Schéma 名; Owner: postgres
--

CREATE INDEX measurements_2026_north_value_note_idx ON "Ünïcödé Schéma 名".measurements_2026_north USING btree (value DESC NULLS LAST) INCLUDE (note);


--
-- Name: hashed_0_pkey; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.hashed_pkey ATTACH PARTITION public.hashed_0_pkey;


--
-- Name: hashed_1_pkey; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.hashed_pkey ATTACH PARTITION public.hashed_1_pkey;


--
-- Name: hashed_2_pkey; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.hashed_pkey ATTACH PARTITION public.hashed_2_pkey;


--
-- Name: measurements_2025_pkey; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.measurements_pkey ATTACH PARTITION public.measurements_2025_pkey;


--
-- Name: measurements_2025_value_note_idx; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.measurements_value ATTACH PARTITION public.measurements_2025_value_note_idx;


--
-- Name: measurements_2026_pkey; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.measurements_pkey ATTACH PARTITION public.measurements_2026_pkey;


--
-- Name: measurements_2026_rest_pkey; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.measurements_2026_pkey ATTACH PARTITION public.measurements_2026_rest_pkey;


--
-- Name: measurements_2026_rest_value_note_idx; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.measurements_2026_value_note_idx ATTACH PARTITION public.measurements_2026_rest_value_note_idx;


--
-- Name: measurements_2026_value_note_idx; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.measurements_value ATTACH PARTITION public.measurements_2026_value_note_idx;


--
-- Name: measurements_default_pkey; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.measurements_pkey ATTACH PARTITION public.measurements_default_pkey;


--
-- Name: measurements_default_value_note_idx; Type: INDEX ATTACH; Schema: public; Owner: postgres
--

ALTER INDEX public.measurements_value ATTACH PARTITION public.measurements_default_value_note_idx;


--
-- Name: measurements_2026_north_pkey; Type: INDEX ATTACH; Schema: Ünïcödé Schéma 名; Owner: postgres
--

ALTER INDEX public.measurements_2026_pkey ATTACH PARTITION "Ünïcödé Schéma 名".measurements_2026_north_pkey;


--
-- Name: measurements_2026_north_value_note_idx; Type: INDEX ATTACH; Schema: Ünïcödé Schéma 名; Owner: postgres
--

ALTER INDEX public.measurements_2026_value_note_idx ATTACH PARTITION "Ünïcödé Schéma 名".measurements_2026_north_value_note_idx;


--
-- Name: order_statistics; Type: STATISTICS; Schema: public; Owner: postgres
--

CREATE STATISTICS public.order_statistics (ndistinct, dependencies) ON customer, state FROM public.orders;


ALTER STATISTICS public.order_statistics OWNER TO postgres;

--
-- Name: tree log_tree; Type: RULE; Schema: public; Owner: postgres
--

CREATE RULE log_tree AS
    ON INSERT TO public.tree DO  INSERT INTO public.rule_log (name)
  VALUES ((new.name || ';'::text));


--
-- Name: customers audit; Type: TRIGGER; Schema: public; Owner: postgres
--

CREATE TRIGGER audit AFTER INSERT OR DELETE OR UPDATE ON public.customers FOR EACH ROW EXECUTE FUNCTION public.audit_row();


--
-- Name: orders audit; Type: TRIGGER; Schema: public; Owner: postgres
--

CREATE TRIGGER audit AFTER INSERT OR DELETE OR UPDATE ON public.orders FOR EACH ROW EXECUTE FUNCTION public.audit_row();


--
-- Name: order_lines late_audit; Type: TRIGGER; Schema: public; Owner: postgres
--

CREATE CONSTRAINT TRIGGER late_audit AFTER INSERT ON public.order_lines DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.amount > 5)) EXECUTE FUNCTION public.audit_row();


--
-- Name: customers touch; Type: TRIGGER; Schema: public; Owner: postgres
--

CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON public.customers FOR EACH ROW EXECUTE FUNCTION public.touch();


--
-- Name: customers favourite_order; Type: FK CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.customers
    ADD CONSTRAINT favourite_order FOREIGN KEY (favourite) REFERENCES public.orders(id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;


--
-- Name: order_lines order_lines_order_fkey; Type: FK CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.order_lines
    ADD CONSTRAINT order_lines_order_fkey FOREIGN KEY ("order") REFERENCES public.orders(id) ON DELETE CASCADE;


--
-- Name: orders orders_customer_fkey; Type: FK CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_customer_fkey FOREIGN KEY (customer) REFERENCES public.customers(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: tree tree_parent_fkey; Type: FK CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.tree
    ADD CONSTRAINT tree_parent_fkey FOREIGN KEY (parent) REFERENCES public.tree(id) ON DELETE SET NULL;


--
-- Name: audit; Type: ROW SECURITY; Schema: public; Owner: postgres
--

ALTER TABLE public.audit ENABLE ROW LEVEL SECURITY;

--
-- Name: audit everyone; Type: POLICY; Schema: public; Owner: postgres
--

CREATE POLICY everyone ON public.audit USING (true);


--
-- Name: audit see; all; Type: POLICY; Schema: public; Owner: postgres
--

CREATE POLICY "see; all" ON public.audit FOR SELECT TO "relevo awkward; reader" USING ((what <> ';'::text));


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: types; Owner: postgres
--

ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA types GRANT SELECT ON TABLES TO "relevo awkward; reader";


--
-- Name: log_ddl; Type: EVENT TRIGGER; Schema: -; Owner: postgres
--

CREATE EVENT TRIGGER log_ddl ON ddl_command_end
   EXECUTE FUNCTION public.log_ddl();


ALTER EVENT TRIGGER log_ddl OWNER TO postgres;

--
-- PostgreSQL database dump complete
--

\unrestrict W6ZQeZOQQjcFg1Ao73dZvIqxEVj2Z6MmZaB2fAcYdtHB5JX88C0jQMYHQvQQwfA

