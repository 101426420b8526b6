# Turns the figures of a scenario of tests/bench/run into a table, and into JSON where a file is named. A line of figures:
# proxy connections round requests duration_us p99_us user_ticks system_ticks guard_ticks connections_opened

function sorted(values, count,    i, j, value) {
    for (i = 2; i <= count; i++) {
        value = values[i]
        for (j = i - 1; j >= 1 && values[j] > value; j--) values[j + 1] = values[j]
        values[j + 1] = value
    }
}

# Sets median, low and high of one figure of a proxy at a number of connections.
function judge(figure, key,    i, count, values) {
    count = taken[key]
    for (i = 1; i <= count; i++) values[i] = figures[figure, key, i]
    sorted(values, count)
    low = values[1]
    high = values[count]
    median = count % 2 ? values[(count + 1) / 2] : (values[count / 2] + values[count / 2 + 1]) / 2
    medians[figure, key] = median
}

function spread(figure, key, format) {
    judge(figure, key)
    return sprintf(format " (" format "-" format ")", median, low, high)
}

function json_figure(figure, key) {
    judge(figure, key)
    return sprintf("\"%s\": {\"median\": %.3f, \"min\": %.3f, \"max\": %.3f}", figure, median, low, high)
}

{
    key = $1 SUBSEP $2
    if (!(key in taken)) {
        order[++keys] = key
        if (!($2 in counted)) { counted[$2] = 1; connections[++counts] = $2 }
        if (!($1 in seen)) { seen[$1] = 1; proxies[++proxy_count] = $1 }
    }
    n = ++taken[key]
    tick_us = 1000000 / ticks
    figures["user_us", key, n] = $7 * tick_us / $4
    figures["system_us", key, n] = $8 * tick_us / $4
    figures["total_us", key, n] = ($7 + $8) * tick_us / $4
    figures["requests_per_second", key, n] = $4 * 1000000 / $5
    figures["p99_ms", key, n] = $6 / 1000
    figures["guard_us", key, n] = $9 * tick_us / $4
    figures["cpu_percent", key, n] = ($7 + $8) * tick_us * 100 / $5
}

END {
    if (!keys) exit 1
    for (c = 1; c <= counts; c++) {
        printf "\n%s connections; CPU of the proxy a request, median (min-max)\n", connections[c]
        printf "%-8s  %-20s  %-22s  %-22s  %-22s  %-20s  %s\n", "", "user us", "system us", "together us", "requests/s", \
            "p99 ms", "busy %"
        for (p = 1; p <= proxy_count; p++) {
            key = proxies[p] SUBSEP connections[c]
            printf "%-8s  %-20s  %-22s  %-22s  %-22s  %-20s  %s\n", proxies[p], spread("user_us", key, "%.2f"), \
                spread("system_us", key, "%.2f"), spread("total_us", key, "%.2f"), spread("requests_per_second", key, "%.0f"), \
                spread("p99_ms", key, "%.2f"), spread("cpu_percent", key, "%.0f")
        }
        for (p = 1; p <= proxy_count; p++) {
            judge("cpu_percent", proxies[p] SUBSEP connections[c])
            if (low < 90) printf "%s was busy for only %.0f %% of a round: something else held the machine\n", proxies[p], low
        }
        ours = "baton" SUBSEP connections[c]
        if (!(ours in taken)) continue
        printf "baton's guard, not counted above: %s us a request\n", spread("guard_us", ours, "%.3f")
        for (p = 1; p <= proxy_count; p++) {
            if (proxies[p] == "baton") continue
            key = proxies[p] SUBSEP connections[c]
            ratio[key] = medians["total_us", ours] / medians["total_us", key]
            printf "baton/%s: %.3f of the CPU together, %.3f of user, %.3f of the requests a second\n", proxies[p], ratio[key], \
                medians["user_us", ours] / medians["user_us", key], \
                medians["requests_per_second", ours] / medians["requests_per_second", key]
        }
    }
    if (json != "") {
        for (k = 1; k <= keys; k++) {
            key = order[k]
            split(key, part, SUBSEP)
            printf "  {\"scenario\": \"%s\", \"proxy\": \"%s\", \"connections\": %d, %s, %s, %s, %s, %s, %s, \"baton_ratio\": %s},\n", scenario, \
                part[1], part[2], json_figure("user_us", key), json_figure("system_us", key), json_figure("total_us", key), \
                json_figure("requests_per_second", key), json_figure("p99_ms", key), json_figure("guard_us", key), \
                ((key in ratio) ? sprintf("%.4f", ratio[key]) : "null") > json
        }
    }
}
