// A board of charts: it fetches its series itself, again and again while the page is seen, and draws them with ECharts.
import { echarts } from "nicegui-echart";

const PERIODS = [[3600, 10], [21600, 30], [86400, 60], [Infinity, 300]];  // seconds shown, seconds between two reads
const LETTER = 6;  // pixels that a letter of an event's name needs

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const palette = () => [1, 2, 3, 4, 5, 6, 7].map((number) => token(`--chart-${number}`));

function short(value, form) {
  if (value == null) return "no data";
  const size = Math.abs(value);
  if (form === "bytes") {
    for (const [unit, name] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [1024, "KiB"]]) {
      if (size >= unit) return `${digits(value / unit)} ${name}`;
    }
    return `${digits(value)} B`;
  }
  if (form === "rate") {
    for (const [unit, name] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
      if (size >= unit) return `${digits(value / unit)} ${name}`;
    }
    return `${digits(value)} B`;
  }
  if (form === "seconds") {
    for (const [unit, name] of [[172800, "d"], [7200, "h"], [120, "min"]]) {
      if (size >= unit) return `${digits(value / (name === "d" ? 86400 : name === "h" ? 3600 : 60))} ${name}`;
    }
    return `${digits(value)} s`;
  }
  if (size >= 1e6) return `${digits(value / 1e6)} M`;
  if (size >= 1e4) return `${digits(value / 1e3)} k`;
  return digits(value);
}

// The distance of lines on the axis where round numbers are not those of ten: 2 GiB, 12 h.
function round(most, form) {
  const units = form === "bytes" ? [1, 1024, 2 ** 20, 2 ** 30, 2 ** 40] : form === "seconds" ? [1, 60, 3600, 86400] : [];
  const unit = units.filter((one) => most >= 2 * one).pop();
  if (!unit) return undefined;
  const steps = form === "seconds" && unit === 3600 ? [1, 2, 6, 12, 24] : [1, 2, 5, 10, 20, 50, 100, 200, 500];
  return unit * (steps.find((step) => (step * unit * 4) >= most) || steps[steps.length - 1]);
}

function digits(value) {
  const size = Math.abs(value);
  return value.toLocaleString(undefined, { maximumFractionDigits: size >= 100 ? 0 : size >= 10 ? 1 : 2 });
}

export default {
  template: `
    <section class="board">
      <div class="section-head">
        <h2>{{ heading }}</h2>
        <div class="board-tools">
          <span class="small" :class="trouble ? 'bad' : 'muted'" role="status">{{ trouble || told }}</span>
          <div v-if="choices.length > 1" class="segmented" role="radiogroup" aria-label="Time range">
            <button v-for="one in choices" :key="one[0]" type="button" role="radio" :aria-checked="one[0] === shown"
              :tabindex="one[0] === shown ? 0 : -1" @click="choose(one[0])">{{ one[1] }}</button>
          </div>
        </div>
      </div>
      <div class="charts" :class="{ three: live === 'only' }">
        <figure v-for="chart in charts" :key="chart.key" class="panel chart-panel">
          <figcaption class="chart-head">
            <h3>{{ chart.title }} <span class="small muted">{{ chart.unit }}</span></h3>
            <div v-if="!chart.members || (lines[chart.key] || []).length > 1" class="legend">
              <button v-for="line in lines[chart.key] || []" :key="line.name" type="button" :aria-pressed="!hidden[line.name]"
                :title="'Show or hide ' + line.name" @click="toggle(line.name)">
                <i :style="{ background: line.colour }" aria-hidden="true"></i>{{ line.name }}
              </button>
            </div>
          </figcaption>
          <div class="chart" role="img" :data-chart="chart.key" :aria-label="spoken(chart)"></div>
          <p v-if="loaded && !(lines[chart.key] || []).length" class="chart-none muted">Nothing was measured in this time</p>
        </figure>
      </div>
    </section>`,
  props: { heading: String, url: String, charts: Array, ranges: Array, live: String, window: Number, limit: Number },
  data() {
    return { shown: this.live === "only" ? 0 : this.ranges[0][0], lines: {}, hidden: {}, loaded: false, told: "", trouble: "" };
  },
  computed: {
    choices() {
      return this.live === "offered" ? [[0, "Live"], ...this.ranges] : this.ranges;
    },
  },
  created() {
    this.drawn = new Map();  // not reactive: charts and bulk data
    this.answer = null;
    this.turn = 0;
    this.near = false;
  },
  mounted() {
    const group = `board-${Math.random().toString(36).slice(2)}`;
    for (const place of this.$el.querySelectorAll("[data-chart]")) {
      const drawn = echarts.init(place, null, { renderer: "canvas" });
      drawn.group = group;
      this.drawn.set(place.dataset.chart, drawn);
    }
    echarts.connect(group);
    this.sizes = new ResizeObserver(() => this.drawn.forEach((drawn) => drawn.resize()));
    for (const place of this.$el.querySelectorAll("[data-chart]")) this.sizes.observe(place);
    this.theme = new MutationObserver(() => this.draw());
    this.theme.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    this.seen = () => this.idle() || this.load();
    document.addEventListener("visibilitychange", this.seen);
    // A board that nobody has scrolled to asks for nothing.
    this.place = new IntersectionObserver(([entry]) => {
      const came = entry.isIntersecting && !this.near;
      this.near = entry.isIntersecting;
      if (came) this.load();
    }, { rootMargin: "200px" });
    this.place.observe(this.$el);
  },
  beforeUnmount() {
    this.turn += 1;
    clearTimeout(this.timer);
    document.removeEventListener("visibilitychange", this.seen);
    this.place.disconnect();
    this.sizes.disconnect();
    this.theme.disconnect();
    this.drawn.forEach((drawn) => drawn.dispose());
  },
  methods: {
    idle() {
      return document.hidden || !this.near;
    },
    choose(seconds) {
      if (seconds === this.shown) return;
      if (this.live === "offered" && (seconds === 0 || this.shown === 0)) this.$emit(seconds === 0 ? "live" : "rest");
      this.shown = seconds;
      this.loaded = false;
      this.load();
    },
    async load() {
      const turn = ++this.turn;
      clearTimeout(this.timer);
      const seconds = this.shown || this.window;
      try {
        const reply = await fetch(`${this.url}&seconds=${seconds}`, { headers: { accept: "application/json" } });
        const body = await reply.json();
        if (turn !== this.turn) return;  // another range was chosen meanwhile
        this.trouble = reply.ok ? "" : body.message;
        if (reply.ok) this.take(body);
      } catch {
        if (turn === this.turn) this.trouble = "The console cannot be reached";
      }
      if (turn !== this.turn) return;
      this.loaded = true;
      const period = PERIODS.find(([most]) => seconds <= most)[1];
      // A live board is told what is new; it asks again only where that failed, and to mark what happened.
      this.timer = setTimeout(() => this.idle() || this.load(), (this.shown === 0 && !this.trouble ? 60 : period) * 1000);
    },
    take(body) {
      if (this.shown === 0 && this.answer && this.answer.live) this.keepLive(body);
      this.answer = body;
      this.answer.live = this.shown === 0;
      const colours = palette();
      const step = body.step < 120 ? `${body.step} s` : body.step < 7200 ? `${Math.round(body.step / 60)} min` : `${Math.round(body.step / 3600)} h`;
      this.told = this.shown === 0 ? "" : `one point per ${step}`;
      this.lines = Object.fromEntries(this.charts.map((chart) => {
        const series = (body.charts[chart.key] || []).map((one, place) => {
          const member = chart.members ? body.members.indexOf(one.member) : place;
          return { name: one.name, colour: colours[(member < 0 ? place : member) % colours.length] };
        });
        return [chart.key, series];
      }));
      this.draw();
    },
    keepLive(body) {  // points that came since the store's newest step stay
      for (const [key, series] of Object.entries(body.charts)) {
        for (const one of series) {
          const before = (this.answer.charts[key] || []).find((other) => other.name === one.name);
          one.recent = before ? before.recent : undefined;
        }
      }
    },
    append({ at, charts }) {
      if (this.shown !== 0 || !this.answer) return;
      for (const [key, values] of Object.entries(charts)) {
        for (const one of this.answer.charts[key] || []) {
          one.recent = (one.recent || []).filter(([moment]) => moment > at - this.window);
          if (one.name in values) one.recent.push([at, values[one.name]]);
        }
      }
      this.answer.now = at;
      if (!document.hidden) this.draw();
    },
    toggle(name) {
      this.hidden = { ...this.hidden, [name]: !this.hidden[name] };
      this.draw();
    },
    spoken(chart) {
      const newest = (this.lines[chart.key] || []).map((line) => `${line.name} ${this.newest(chart, line.name)}`);
      return `${chart.title} in ${chart.unit}. ${newest.join(", ") || "No data"}`;
    },
    newest(chart, name) {
      const one = ((this.answer || { charts: {} }).charts[chart.key] || []).find((other) => other.name === name);
      const values = one ? [...one.values, ...(one.recent || []).map(([, value]) => value)] : [];
      return short(values.filter((value) => value != null).pop(), chart.form);
    },
    draw() {
      if (!this.answer) return;
      for (const chart of this.charts) {
        const drawn = this.drawn.get(chart.key);
        if (drawn) drawn.setOption(this.option(chart, drawn.getWidth()), { notMerge: true, lazyUpdate: true });
      }
    },
    option(chart, width) {
      const body = this.answer;
      const faint = token("--faint");
      const soft = token("--line-soft");
      const end = body.now;
      const begin = this.shown === 0 ? end - this.window : body.start;
      const colours = Object.fromEntries((this.lines[chart.key] || []).map((line) => [line.name, line.colour]));
      const seen = (body.charts[chart.key] || []).filter((one) => !this.hidden[one.name]);
      const series = seen.flatMap((one) => this.seriesOf(chart, one, colours[one.name]));
      if (series.length) series[0].markLine = this.marks(begin, end, width, faint);
      return {
        animation: false,
        textStyle: { fontFamily: "Inter, system-ui, sans-serif" },
        grid: { left: 48, right: 14, top: 20, bottom: 24 },
        tooltip: {
          trigger: "axis",
          confine: true,
          backgroundColor: token("--surface"),
          borderColor: token("--line"),
          padding: [7, 11],
          textStyle: { fontSize: 12, color: token("--text") },
          axisPointer: { lineStyle: { color: faint, type: "dashed" } },
          order: "seriesAsc",
          formatter: (points) => this.tip(chart, points),
        },
        xAxis: {
          type: "time", min: begin * 1000, max: end * 1000,
          axisLine: { lineStyle: { color: token("--line") } }, axisTick: { show: false }, splitLine: { show: false },
          axisLabel: { color: faint, fontSize: 11, hideOverlap: true },
        },
        yAxis: {
          type: "value", min: 0, splitNumber: 3, ...this.scale(chart, seen),
          axisLabel: { color: faint, fontSize: 11, formatter: (value) => short(value, chart.form) },
          splitLine: { lineStyle: { color: soft } },
        },
        series,
      };
    },
    scale(chart, seen) {
      if (chart.highest) return { max: chart.highest, interval: chart.highest / 4 };
      const most = Math.max(this.most(seen), this.limit || 0);
      if (most === 0) return { max: 1, interval: 1 };
      const interval = round(most, chart.form);
      return interval ? { interval, max: Math.ceil(most / interval) * interval } : {};
    },
    most(seen) {
      return Math.max(0, ...seen.map((one) => one.values.reduce((most, value) => Math.max(most, value || 0), 0)));
    },
    seriesOf(chart, one, colour) {
      const { start, step } = this.answer;
      const points = one.values.map((value, place) => [(start + place * step) * 1000, value]);
      const last = points.length ? points[points.length - 1][0] : 0;
      for (const [at, value] of one.recent || []) if (at * 1000 > last) points.push([at * 1000, value]);
      const line = {
        id: one.name, name: one.name, type: "line", showSymbol: false, connectNulls: false, color: colour, z: 3,
        lineStyle: { width: 1.6 }, emphasis: { disabled: true }, data: points,
        stack: chart.stacked ? "all" : undefined, areaStyle: chart.stacked ? { opacity: 0.28 } : undefined,
      };
      if (!one.high || chart.stacked) return [line];
      // From the least to the most of each step, as a band behind the line of averages.
      const band = { type: "line", stack: `band ${one.name}`, silent: true, showSymbol: false, color: colour, lineStyle: { opacity: 0 }, tooltip: { show: false }, emphasis: { disabled: true }, z: 1 };
      const low = one.low.map((value, place) => [(start + place * step) * 1000, value]);
      const high = one.high.map((value, place) => [(start + place * step) * 1000, value == null ? null : value - one.low[place]]);
      return [
        line,
        { ...band, id: `${one.name} least`, name: "", data: low },
        { ...band, id: `${one.name} most`, name: "", data: high, areaStyle: { opacity: 0.13 } },
      ];
    },
    marks(begin, end, width, colour) {
      let free = -Infinity;  // where the room for the next name begins
      const data = this.answer.events.filter((one) => one.at >= begin && one.at <= end).map((one) => {
        const place = ((one.at - begin) / (end - begin)) * width;
        const wide = one.name.length * LETTER;
        // Near an edge the name stands on the side where there is room.
        const align = place > width - wide / 2 ? "right" : place < wide / 2 ? "left" : "center";
        const from = align === "right" ? place - wide : align === "left" ? place : place - wide / 2;
        const named = from > free;
        if (named) free = from + wide;
        return { name: one.name, xAxis: one.at * 1000, label: { show: named, align } };
      });
      if (this.limit != null) {
        const bad = token("--bad");
        data.push({ name: "limit", yAxis: this.limit, lineStyle: { color: bad }, label: { show: true, color: bad, position: "insideEndTop" } });
      }
      return {
        silent: true, symbol: "none", animation: false, data, lineStyle: { type: "dashed", width: 1, color: colour },
        label: { fontSize: 10.5, color: colour, formatter: (mark) => mark.name, distance: 3 },
      };
    },
    // Names come from other people: they become text nodes, never markup.
    tip(chart, points) {
      const box = document.createElement("div");
      box.className = "chart-tip";
      const shown = points.filter((point) => point.seriesName);
      const head = box.appendChild(document.createElement("div"));
      head.className = "muted";
      head.textContent = shown.length ? new Date(shown[0].value[0]).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : "";
      for (const point of shown) {
        const row = box.appendChild(document.createElement("div"));
        row.append(Object.assign(document.createElement("i"), { style: `background:${point.color}` }));
        row.append(Object.assign(document.createElement("span"), { textContent: point.seriesName }));
        row.append(Object.assign(document.createElement("b"), { textContent: this.valueText(chart, point) }));
      }
      return box;
    },
    valueText(chart, point) {
      const one = (this.answer.charts[chart.key] || []).find((other) => other.name === point.seriesName);
      const unit = chart.unit === "%" || chart.unit === "ms" || chart.unit === "s" ? ` ${chart.unit}` : "";
      const text = point.value[1] == null ? "no data" : short(point.value[1], chart.form) + unit;
      const most = one && one.high ? one.high[point.dataIndex] : null;
      return most == null ? text : `${text} (${short(one.low[point.dataIndex], chart.form)} to ${short(most, chart.form)})`;
    },
  },
};
