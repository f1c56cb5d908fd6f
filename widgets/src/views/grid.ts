// Any two axes of numbers as a heat map; further axes are chosen above it.
import { gridView } from "../core/grid";

export default gridView("grid");
